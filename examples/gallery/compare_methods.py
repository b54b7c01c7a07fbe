"""Compare methods.

Five methods train with five seeds each on the vectors of *Embeddings with scikit-learn*, in which a bias agrees with
the label in 95 of 100 training examples. Two numbers compare them: the accuracy of the worst (label, bias) group, and
the leakage, that is, how well a new classifier predicts the bias from the features (chance: 0.5). Most methods change
what the task head uses and leave the bias in the features; LNTL also removes some of it from the features.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from lntl import figures
from lntl.sklearn import DebiasedClassifier

SEEDS = 5
METHODS = {
    "erm": {"method": "erm"},
    "reweight": {"method": "reweight"},
    "group_dro": {"method": "group_dro"},
    "bias_product": {"method": "bias_product"},
    "lntl on the bias product": {"method": "lntl", "method_settings": {"task": "bias_product"}},
}
random = np.random.default_rng(0)


def draw_examples(n: int, agreement: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors (n, 32), labels (n,) and bias values (n,); the last two agree in a share `agreement` of rows."""
    y = random.integers(0, 2, n)
    bias = np.where(random.random(n) < agreement, y, 1 - y)
    X = random.normal(size=(n, 32))
    X[:, 0] += 1.5 * (2 * y - 1)
    X[:, 1] += 4.0 * (2 * bias - 1)
    return X / X.std(axis=0), y, bias


X, y, bias = draw_examples(2000, 0.95)
X_test, y_test, bias_test = draw_examples(2000, 0.5)
groups = [(y_test == label) & (bias_test == value) for label in (0, 1) for value in (0, 1)]
worst, leakage = {}, {}
for name, settings in METHODS.items():
    scores = []
    for seed in range(SEEDS):
        classifier = DebiasedClassifier(**settings, hidden=(32, 16), epochs=10, random_state=seed)
        correct = classifier.fit(X, y, bias=bias).predict(X_test) == y_test
        probe = cross_val_score(LogisticRegression(max_iter=1000), classifier.transform(X_test), bias_test)
        scores.append((min(correct[group].mean() for group in groups), probe.mean()))
    (worst[name], leakage[name]), spread = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1)
    print(f"{name}: worst group {worst[name]:.2f} ± {spread[0]:.2f}, leakage {leakage[name]:.2f} ± {spread[1]:.2f}")

figure = figures.pareto(worst, leakage, chance=0.5)
figure.axes[0].set_ylabel("worst-group accuracy, %   (more is better)")
figure.savefig("compare_methods.png", dpi=100)
