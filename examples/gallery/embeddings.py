"""Embeddings with scikit-learn.

The vectors stand for embeddings of a foundation model. One direction predicts the label. Another, stronger direction
predicts a bias, which agrees with the label in 95 of 100 training examples. `DebiasedClassifier` is a scikit-learn
estimator: it can be a step of a pipeline, and `fit` takes the bias labels. In the test set, the bias agrees with the
label by chance.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lntl.sklearn import DebiasedClassifier

random = np.random.default_rng(0)


def draw_examples(n: int, agreement: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors (n, 32), labels (n,) and bias values (n,); the last two agree in a share `agreement` of rows."""
    y = random.integers(0, 2, n)
    bias = np.where(random.random(n) < agreement, y, 1 - y)
    X = random.normal(size=(n, 32))
    X[:, 0] += 1.5 * (2 * y - 1)
    X[:, 1] += 4.0 * (2 * bias - 1)
    return X, y, bias


X, y, bias = draw_examples(2000, 0.95)
X_test, y_test, bias_test = draw_examples(2000, 0.5)

plain = DebiasedClassifier("erm", hidden=(32, 16), epochs=15, random_state=0)
debiased = DebiasedClassifier("bias_product", hidden=(32, 16), epochs=15, random_state=0)
models = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    "erm": make_pipeline(StandardScaler(), plain).fit(X, y),
    "bias_product": make_pipeline(StandardScaler(), debiased).fit(X, y, debiasedclassifier__bias=bias),
}
accuracy = {}
for name, model in models.items():
    correct = model.predict(X_test) == y_test
    accuracy[name] = correct[bias_test == y_test].mean(), correct[bias_test != y_test].mean()
    print("{}: accuracy {:.3f} where the bias agrees with the label, {:.3f} elsewhere".format(name, *accuracy[name]))

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
for number, kind in enumerate(("agrees", "disagrees")):
    x = np.arange(len(accuracy)) + 0.4 * (number - 0.5)
    axes.bar(x, [pair[number] for pair in accuracy.values()], 0.38, label=f"bias {kind} with the label")
axes.set_xticks(range(len(accuracy)), list(accuracy))
axes.set_ylim(0, 1)
axes.set_ylabel("test accuracy")
figure.legend(loc="outside upper center", ncols=2, frameon=False)
figure.savefig("embeddings.png", dpi=100)
