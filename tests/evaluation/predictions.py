"""Make predictions for tests of metrics: random predictions, and predictions of chosen classes."""

from typing import Any

import torch
from hypothesis import strategies as st

from lntl.evaluation.predict import Predictions


def make_random_predictions(n: int, classes: int, values: int, seed: int, skill: float = 0.0) -> Predictions:
    """Return predictions of n images, each of a random class and bias value; `skill` is added to the logit of y."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=rng)
    labels = torch.randint(0, 5, (n,), generator=rng)
    return Predictions(
        y=y,
        group=y * values + torch.randint(0, values, (n,), generator=rng),
        row=torch.arange(n),
        logits=torch.randn(n, classes, generator=rng) + skill * torch.nn.functional.one_hot(y, classes),
        bias_hits=(labels * torch.rand(n, generator=rng)).long(),
        bias_labels=labels,
        num_groups=classes * values,
        aligned=tuple(torch.randint(0, values, (classes,), generator=rng).tolist()),
    )


@st.composite
def draw_predictions(draw: Any, min_images: int = 1) -> Predictions:
    """Random predictions for `min_images` to 40 images, with few classes and bias values, some without images."""
    n, classes, values = draw(st.integers(min_images, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return make_random_predictions(
        n, classes, values, draw(st.integers(0, 2**32)), draw(st.sampled_from([0.0, 2.0, 9.0]))
    )


def make_predictions(
    y: list[int],
    predicted: list[int],
    bias: list[int],
    classes: int,
    values: int,
    aligned: tuple[int, ...] = (),
    bias_labels: int = 0,
) -> Predictions:
    """Return predictions with probability 1; each image has `bias_labels` bias labels, and h is wrong on each."""
    group = torch.tensor(y) * values + torch.tensor(bias)
    logits = 50 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()
    no_hits = torch.zeros(len(y), dtype=torch.int64)
    return Predictions(
        torch.tensor(y), group, torch.arange(len(y)), logits, no_hits, no_hits + bias_labels, classes * values, aligned
    )
