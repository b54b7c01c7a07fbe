"""Predictions to measure: random ones, and ones written out by hand."""

from typing import Any

import torch
from hypothesis import strategies as st

from lntl.evaluation.predict import Predictions


def random_predictions(n: int, classes: int, values: int, seed: int, skill: float = 0.0) -> Predictions:
    """Return predictions of n images, each of a random class and bias value; `skill` is added to the right logit."""
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=random)
    labels = torch.randint(0, 5, (n,), generator=random)
    return Predictions(
        y=y,
        group=y * values + torch.randint(0, values, (n,), generator=random),
        row=torch.arange(n),
        logits=torch.randn(n, classes, generator=random) + skill * torch.nn.functional.one_hot(y, classes),
        bias_hits=(labels * torch.rand(n, generator=random)).long(),
        bias_labels=labels,
        num_groups=classes * values,
        aligned=tuple(torch.randint(0, values, (classes,), generator=random).tolist()),
    )


@st.composite
def predictions(draw: Any, least: int = 1) -> Predictions:
    """Random predictions of a few classes and bias values, some of which may not occur, on `least` images or more."""
    n, classes, values = draw(st.integers(least, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return random_predictions(n, classes, values, draw(st.integers(0, 2**32)), draw(st.sampled_from([0.0, 2.0, 9.0])))


def of(
    y: list[int],
    predicted: list[int],
    bias: list[int],
    classes: int,
    values: int,
    aligned: tuple[int, ...] = (),
    labels: int = 0,
) -> Predictions:
    """Return predictions with certainty, and with `labels` known bias labels an image, of which h gets none right."""
    group = torch.tensor(y) * values + torch.tensor(bias)
    logits = 50 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()
    none = torch.zeros(len(y), dtype=torch.int64)
    return Predictions(
        torch.tensor(y), group, torch.arange(len(y)), logits, none, none + labels, classes * values, aligned
    )
