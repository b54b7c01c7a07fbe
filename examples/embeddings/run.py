"""Feature vectors and the scikit-learn estimator: plain training compared with a method that uses bias labels.

The vectors stand for those of a foundation model: they are outputs of a frozen convolutional network with random
weights for images of digits on colored backgrounds. In 95 % of the training images the background predicts the digit;
in the test images it does not.

    python examples/embeddings/run.py [--images N] [--epochs N] [--seeds N] [--out results.json]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import adaptive_avg_pool2d

from lntl.data.colored_mnist import ColoredMNIST
from lntl.evaluation import metrics
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import compute, interval, resample
from lntl.models.convnet import ConvNet
from lntl.runs import environment
from lntl.runs.files import write_json
from lntl.sklearn import DebiasedClassifier

Array = NDArray[Any]
K = 5  # number of digits (0 to 4) and of backgrounds
BACKGROUNDS = np.array([(210, 60, 60), (60, 170, 70), (70, 90, 210), (200, 180, 50), (150, 60, 180)])  # RGB
ALIGNED = 0.95  # share of the training images on the background of their digit; the others have a random background
# The settings from which the best is chosen on val; `lntl methods bias_product` and `lntl methods lntl` explain them.
GRID = [
    {
        "debiasedclassifier__method": ["bias_product"],
        "debiasedclassifier__method_settings": [{"smoothing": 0.01}, {"smoothing": 0.001}],
    },
    {
        "debiasedclassifier__method": ["lntl"],
        "debiasedclassifier__mu": [0.02],
        "debiasedclassifier__method_settings": [{"task": "bias_product", "smoothing": 0.001, "h_steps": 2}],
    },
]


def draw_colored_digits(digits: ColoredMNIST, split: str, part: slice, aligned: float) -> tuple[Array, Array, Array]:
    """Return white digits on colored backgrounds, uint8 (n, 3, 28, 28), the digit and the background (n,)."""
    mnist = digits.splits[split]
    index = (mnist.y < K).nonzero()[part, 0]
    y = mnist.y[index].numpy()
    random = np.random.default_rng((part.start, len(y), split == "test"))
    background = np.where(random.random(len(y)) < aligned, y, random.integers(0, K, len(y)))
    color = (BACKGROUNDS[background] + random.normal(0, 20, (len(y), 3))).clip(0, 255)
    is_stroke = mnist.strokes[index].numpy()[:, None] > 0
    return np.where(is_stroke, 255, color[:, :, None, None]).astype(np.uint8), y, background


@torch.inference_mode()
def embed(images: Array, digits: ColoredMNIST) -> Array:
    """Return 800 numbers per image: 32 channels of a random convolutional network, average-pooled to 5 x 5."""
    torch.manual_seed(0)
    f = ConvNet(digits.spec, ConvNet.Config()).f.eval()
    parts = torch.from_numpy(images).split(500)
    return torch.cat([adaptive_avg_pool2d(f(x / 127.5 - 1), 5).flatten(1) for x in parts]).numpy()


def build_classifier(epochs: int, **settings: Any) -> Pipeline:
    """Return the pipeline: a scaler of the vectors, then a small network."""
    network = DebiasedClassifier(hidden=(128, 64), epochs=epochs, ema=0.98, device="cpu", **settings)
    return make_pipeline(StandardScaler(), network.set_fit_request(bias=True))


def compute_worst_group(y: Array, predicted: Array, bias: Array) -> float:
    """Return the lowest accuracy among the (digit, background) groups."""
    is_correct = predicted == y
    return min(float(is_correct[(y == digit) & (bias == b)].mean()) for digit, b in {*zip(y, bias, strict=True)})


def choose_settings(
    train: tuple[Array, ...], val: tuple[Array, ...], epochs: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the settings of GRID that are best on val (trained on train, seed 100), and the score of each setting."""
    X, y, bias = (np.concatenate(pair) for pair in zip(train, val, strict=True))
    fold = PredefinedSplit(np.repeat([-1, 0], [len(train[1]), len(val[1])]))
    scorer = make_scorer(compute_worst_group).set_score_request(bias=True)
    pipeline = build_classifier(epochs, random_state=100)
    search = GridSearchCV(pipeline, GRID, scoring=scorer, cv=fold, refit=False).fit(X, y, bias=bias)
    results = search.cv_results_
    scores = {str(p): round(float(s), 4) for p, s in zip(results["params"], results["mean_test_score"], strict=True)}
    return {name.partition("__")[2]: value for name, value in search.best_params_.items()}, scores


def evaluate(pipeline: Pipeline, test: tuple[Array, Array, Array]) -> dict[str, Any]:
    """Return accuracy and worst-group accuracy on test, each with its 95 % bootstrap interval over the test images."""
    X, y, bias = test
    no_labels = torch.zeros(len(y), dtype=torch.int64)  # labels and hits of h, which is not evaluated here
    p = Predictions(
        y=torch.from_numpy(y),
        group=torch.from_numpy(y * K + bias),
        row=torch.arange(len(y)),
        logits=torch.from_numpy(pipeline.decision_function(X)),
        bias_hits=no_labels,
        bias_labels=no_labels,
        num_groups=K * K,
    )
    names = ("accuracy", "worst_group_accuracy")
    value, resampled = compute(p, names), resample(p, {name: metrics.METRICS[name].function for name in names})
    return {name: [value[name], *interval(resampled[name])] for name in names}


def main(arguments: list[str] | None = None) -> None:
    """Choose settings on val, train and test with each seed, print a table and write it."""
    parser = argparse.ArgumentParser(description="Train on feature vectors with lntl's scikit-learn estimator.")
    parser.add_argument("--images", type=int, default=4000, help="number of training images; val has half as many")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    args = parser.parse_args(arguments)
    sklearn.set_config(enable_metadata_routing=True)
    digits = ColoredMNIST(ColoredMNIST.Config(path="none"))
    n = args.images
    images = (
        draw_colored_digits(digits, "train", slice(0, n), ALIGNED),
        draw_colored_digits(digits, "train", slice(n, n + n // 2), 0),
        draw_colored_digits(digits, "test", slice(0, None), 0),
    )
    train, val, test = ((embed(x, digits), y, bias) for x, y, bias in images)
    best, val_scores = choose_settings(train, val, args.epochs)
    rows = []
    for seed in range(args.seeds):
        for settings in ({"method": "erm"}, best):
            classifier = build_classifier(args.epochs, random_state=seed, **settings).fit(*train[:2], bias=train[2])
            rows.append({"method": settings["method"], "seed": seed, **evaluate(classifier, test)})
            print("{method:>14}  seed {seed}".format(**rows[-1]), *format_intervals(rows[-1]), sep="   ")
    results = {"chosen": best, "worst group on val": val_scores, "images": n, "epochs": args.epochs, "test": rows}
    write_json(args.out, results | {"environment": environment.describe().model_dump(exclude={"resumed"})})


def format_intervals(row: dict[str, Any]) -> list[str]:
    """Return the metrics of a row with their intervals, as text."""
    return [
        "{} {:.3f} ({:.3f} to {:.3f})".format(name.replace("_", " "), *row[name])
        for name in ("accuracy", "worst_group_accuracy")
    ]


if __name__ == "__main__":
    main()
