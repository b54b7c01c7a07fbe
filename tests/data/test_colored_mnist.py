"""The paper's protocol: strokes, colors, splits and labels, compared with slow loops or statistics."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lanes import first_is_fast
from scipy import stats
from torch import Tensor

from lntl.data.colored_mnist import COLORS, ColoredDigits, ColoredMNIST, draw_colors, nearest_mean
from lntl.types import IGNORE

MEANS = [  # mean colors of the digits 0 to 9; source: PAPER.md section 3, pixels of the authors' files
    (220, 20, 60), (0, 128, 128), (253, 233, 16), (0, 149, 182), (237, 145, 33),
    (145, 30, 188), (70, 240, 240), (250, 197, 187), (210, 245, 60), (128, 0, 0),
]  # fmt: skip
VARIANCES = [0.020, 0.025, 0.030, 0.035, 0.040, 0.045, 0.050]


def make_data(**settings: Any) -> ColoredMNIST:
    return ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", **settings))


@pytest.fixture(scope="module")
def full_data() -> ColoredMNIST:
    return make_data()


@pytest.fixture(scope="module")
def data_without_jitter() -> ColoredMNIST:
    """All images with almost no jitter: the nearest mean color is the mean color that was drawn."""
    return make_data(color_var=1e-4)


# --- strokes, labels, splits ---


def test_the_digits_are_those_of_mnist(full_data: ColoredMNIST) -> None:
    """Counts of the labels and the first test labels as published; strokes are 0 or 1, no image is empty or filled."""
    train, val, test = (full_data.splits[name] for name in ("train", "val", "test"))
    label_counts = torch.bincount(torch.cat([train.y, val.y]))
    assert label_counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert test.strokes.unique().tolist() == [0, 1]
    stroke_share = test.strokes.flatten(1).float().mean(dim=1)
    assert stroke_share.min() > 0.01
    assert stroke_share.max() < 0.5


def test_the_first_test_image_looks_like_a_seven(full_data: ColoredMNIST) -> None:
    """A seven has a bar at the top, a slanted stroke below, and no pixels at the lower left."""
    seven = full_data.splits["test"].strokes[0]
    assert seven[7:11, 6:20].float().mean() > 0.4
    assert seven[20:26, 10:14].any()
    assert not seven[14:, :8].any()


@pytest.mark.parametrize("variance", [VARIANCES[0], VARIANCES[-1]])
def test_an_aligned_color_determines_its_digit_in_training(variance: float) -> None:
    """The most frequent digit among the training images nearest to a mean color is the digit of that color."""
    data = make_data(color_var=variance)
    groups = data.splits["train"].group.tolist()
    for color in range(10):
        counts = [groups.count(10 * digit + color) for digit in range(10)]
        assert data.spec.aligned[counts.index(max(counts))] == color


@pytest.mark.parametrize("ratio", [0.05, 0.3])
def test_train_and_val_are_disjoint_and_complete(ratio: float) -> None:
    splits = make_data(max_images=500, val_split_ratio=ratio).splits
    rows = [splits[name].row.tolist() for name in ("train", "val")]
    assert sorted(rows[0] + rows[1]) == list(range(500))
    assert len(rows[1]) == round(500 * ratio)
    assert splits["test"].row.tolist() == list(range(500))


@settings(max_examples=10)
@example(0.999, 100)
@example(1e-6, 100)
@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.integers(100, 200))
@pytest.mark.full
def test_no_split_is_empty(ratio: float, max_images: int) -> None:
    assert all(len(split) > 0 for split in make_data(max_images=max_images, val_split_ratio=ratio).splits.values())


def test_max_images_takes_the_first_images_of_train_and_test(full_data: ColoredMNIST) -> None:
    small_data = make_data(max_images=150)
    assert len(small_data.splits["train"]) + len(small_data.splits["val"]) == len(small_data.splits["test"]) == 150
    assert torch.equal(small_data.splits["test"].strokes, full_data.splits["test"].strokes[:150])
    assert make_data(max_images=10**6).splits["test"].row.tolist() == list(range(10_000))


# --- colors ---


def test_the_mean_colors_are_those_of_the_paper() -> None:
    assert list(COLORS.values()) == MEANS


def draw_by_rejection(mean: float, variance: float, n: int) -> np.ndarray:
    """Return n rounded samples of N(mean, variance) between 1 and 254; other samples are rejected."""
    rng, samples = np.random.default_rng(0), np.empty(0)
    while len(samples) < n:
        candidates = rng.normal(mean / 255, math.sqrt(variance), n) * 255
        samples = np.concatenate([samples, candidates[(candidates > 0.5) & (candidates < 254.5)]])
    return samples[:n].round()


@pytest.mark.parametrize("variance", [0.02, 0.05])
@pytest.mark.parametrize("mean", [0, 20, 128, 253])
def test_colors_follow_the_truncated_normal_distribution(mean: int, variance: float) -> None:
    n = 20_000
    colors = draw_colors(variance, torch.full((n, 3), mean, dtype=torch.float64), seed=1)[:, 0].double().numpy()
    expected = draw_by_rejection(mean, variance, n)
    standard_error = expected.std() / math.sqrt(n)
    assert colors.mean() == pytest.approx(expected.mean(), abs=6 * standard_error)
    assert colors.std() == pytest.approx(expected.std(), abs=6 * standard_error)
    assert stats.ks_2samp(colors, expected).pvalue > 1e-3


@given(st.floats(1e-6, 1), st.integers(0, 2**63 - 1))
def test_no_channel_is_0_or_255_and_colors_do_not_depend_on_the_number_of_images(variance: float, seed: int) -> None:
    means = torch.tensor(MEANS, dtype=torch.float64).repeat(20, 1)
    colors = draw_colors(variance, means, seed)
    assert colors.dtype == torch.uint8
    assert colors.min() >= 1
    assert colors.max() <= 254
    assert torch.equal(draw_colors(variance, means[:37], seed), colors[:37])


@given(st.integers(0, 2**63 - 1))
def test_with_a_tiny_variance_the_color_is_the_mean(seed: int) -> None:
    means = torch.tensor(MEANS, dtype=torch.float64)
    assert (draw_colors(1e-6, means, seed).double() - means.clamp(1, 254)).abs().max() <= 2


def test_channels_are_independent_and_seeds_differ() -> None:
    means = torch.full((20_000, 3), 128.0, dtype=torch.float64)
    colors = draw_colors(0.02, means, seed=0)
    correlation = np.corrcoef(colors.double().numpy().T)
    assert abs(correlation - np.eye(3)).max() < 0.03
    assert not torch.equal(colors, draw_colors(0.02, means, seed=1))


@pytest.mark.parametrize("variance", first_is_fast(VARIANCES))
def test_train_images_have_the_mean_color_of_their_digit(variance: float) -> None:
    """The mean color of each digit and channel is that of the truncated normal, within 6 standard errors."""
    split = make_data(color_var=variance).splits["train"]
    sigma = 255 * math.sqrt(variance)
    for digit, means in enumerate(MEANS):
        colors = split.color[split.y == digit].double()
        for channel, mean in enumerate(means):
            expected = stats.truncnorm((0.5 - mean) / sigma, (254.5 - mean) / sigma, mean, sigma)
            standard_error = expected.std() / math.sqrt(len(colors))
            assert colors[:, channel].mean().item() == pytest.approx(expected.mean(), abs=6 * standard_error + 0.1)


def test_test_images_have_a_random_mean_color(data_without_jitter: ColoredMNIST) -> None:
    split = data_without_jitter.splits["test"]
    table = torch.bincount(split.group, minlength=100).view(10, 10).numpy()
    assert stats.chisquare(table.sum(axis=0)).pvalue > 1e-3  # the ten means are equally frequent
    assert stats.chi2_contingency(table).pvalue > 1e-3  # and independent of the digit


def test_val_is_biased_or_random_by_its_setting(data_without_jitter: ColoredMNIST) -> None:
    biased_data = make_data(color_var=1e-4, val_coloring="biased")
    aligned_groups = torch.arange(10) * 11  # the groups whose color is the mean color of their digit
    assert torch.isin(data_without_jitter.splits["train"].group, aligned_groups).all()
    assert torch.isin(biased_data.splits["val"].group, aligned_groups).all()
    table = torch.bincount(data_without_jitter.splits["val"].group, minlength=100).view(10, 10).numpy()
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert torch.equal(biased_data.splits["val"].strokes, data_without_jitter.splits["val"].strokes)
    assert "biased" in biased_data.val_note
    assert "random" in data_without_jitter.val_note


def get_colors_by_row(data: ColoredMNIST, split: str) -> dict[int, list[int]]:
    return dict(zip(data.splits[split].row.tolist(), data.splits[split].color.tolist(), strict=True))


@pytest.mark.parametrize("changes", [{"max_images": 5000}, {"val_split_ratio": 0.3}])
def test_the_color_of_an_image_does_not_depend_on_the_number_of_images(
    full_data: ColoredMNIST, changes: dict[str, Any]
) -> None:
    changed_data = make_data(**changes)
    for split in ("train", "val", "test"):
        colors, other_colors = get_colors_by_row(full_data, split), get_colors_by_row(changed_data, split)
        shared_rows = colors.keys() & other_colors.keys()
        assert len(shared_rows) > 20
        assert all(colors[row] == other_colors[row] for row in shared_rows)


def test_all_colors_depend_on_the_seed(full_data: ColoredMNIST) -> None:
    seed_0, seed_1 = make_data(max_images=300), make_data(max_images=300, seed=1)
    for split in ("train", "val", "test"):
        assert torch.equal(seed_0.splits[split].color, make_data(max_images=300).splits[split].color)
    for split in ("train", "test"):
        rows = seed_0.splits[split].row
        is_equal = [
            get_colors_by_row(seed_1, split).get(row) == get_colors_by_row(seed_0, split)[row] for row in rows.tolist()
        ]
        assert np.mean(is_equal) < 0.05


def test_the_group_combines_the_label_and_the_nearest_mean_color(digits: ColoredMNIST) -> None:
    for split in digits.splits.values():
        for color, y, group in zip(split.color.tolist(), split.y.tolist(), split.group.tolist(), strict=True):
            distance = [sum((a - b) ** 2 for a, b in zip(color, mean, strict=True)) for mean in MEANS]
            assert group == y * 10 + distance.index(min(distance))


def test_the_nearest_mean_of_each_mean_color_is_itself() -> None:
    assert nearest_mean(torch.tensor(MEANS, dtype=torch.uint8)).tolist() == list(range(10))


# --- batches ---


def slow_bias(pixels: Tensor) -> Tensor:
    """Return the labels of uint8 (N, 3, 28, 28): pixels 1, 3, 5, ... of each axis, value // 32, background IGNORE."""
    bias = torch.empty(len(pixels), 3, 14, 14, dtype=torch.int64)
    for n, c, i, j in np.ndindex(*bias.shape):
        value = int(pixels[n, c, 2 * i + 1, 2 * j + 1])
        bias[n, c, i, j] = value // 32 if value > 0 else IGNORE
    return bias


def test_a_batch_equals_slow_loops(digits: ColoredMNIST) -> None:
    split, index = digits.splits["train"], torch.tensor([3, 0, 17])
    batch = split.batch(index)
    pixels = torch.zeros(3, 3, 28, 28, dtype=torch.uint8)
    for n, row in enumerate(index.tolist()):
        for i, j in split.strokes[row].nonzero().tolist():
            pixels[n, :, i, j] = split.color[row]
    assert torch.equal(split.pixels(index), pixels)
    for c, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), strict=True)):
        torch.testing.assert_close(batch.x[:, c].double(), (pixels[:, c].double() / 255 - mean) / std, rtol=1e-5, atol=1e-6)  # fmt: skip # noqa: E501
    assert torch.equal(batch.bias, slow_bias(pixels))
    assert (batch.bias != IGNORE).any()
    torch.testing.assert_close(batch.bias_features, split.color[index] / 255)
    for field in ("y", "group", "row"):
        assert torch.equal(getattr(batch, field), getattr(split, field)[index])
    assert batch.x.dtype == torch.float32
    assert batch.x.shape[1:] == digits.spec.input_shape
    assert batch.bias.shape[1:] == digits.spec.bias_shape
    assert batch.bias.max() < digits.spec.num_bins


def test_a_batch_without_bias_contains_no_color_label(batch: Any) -> None:
    unlabelled_batch = batch.without_bias()
    assert (unlabelled_batch.bias == IGNORE).all()
    assert (unlabelled_batch.group == IGNORE).all()
    assert not unlabelled_batch.bias_features.any()
    assert torch.equal(unlabelled_batch.x, batch.x)
    assert torch.equal(unlabelled_batch.y, batch.y)


def test_a_split_moves_to_a_device_with_all_its_tensors(digits: ColoredMNIST) -> None:
    split = digits.splits["val"].to(torch.device("meta"))
    assert isinstance(split, ColoredDigits)
    assert {t.device.type for t in vars(split).values() if isinstance(t, torch.Tensor)} == {"meta"}


def test_gray_images_keep_the_bias_labels_of_their_colors() -> None:
    index = torch.arange(20)
    colored_split, gray_split = (make_data(grayscale=g).splits["test"] for g in (False, True))
    pixels, gray_pixels = colored_split.pixels(index), gray_split.pixels(index)
    assert gray_pixels.dtype == torch.uint8
    for n, i, j in [(0, 14, 14), (3, 10, 13), (7, 18, 15), (11, 0, 0)]:
        r, g, b = pixels[n, :, i, j].tolist()
        assert gray_pixels[n, :, i, j].tolist() == [round(0.299 * r + 0.587 * g + 0.114 * b)] * 3
    assert torch.equal(colored_split.batch(index).bias, gray_split.batch(index).bias)
    x = gray_split.batch(index).x
    for c, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), strict=True)):
        torch.testing.assert_close(x[:, c] * std + mean, gray_pixels[:, c] / 255, rtol=0, atol=1e-6)


def test_bias_dilation_extends_labels_into_the_background() -> None:
    index = torch.arange(10)
    narrow_split, wide_split = (make_data(bias_dilation=dilation).splits["train"] for dilation in (0, 2))
    narrow_bias, wide_bias = narrow_split.batch(index).bias, wide_split.batch(index).bias
    is_stroke = (narrow_bias != IGNORE).any(dim=1)
    for n in range(10):
        color_bins = (narrow_split.color[n] // 32).tolist()
        for i in range(14):
            for j in range(14):
                is_near = is_stroke[n, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3].any()
                expected = (
                    narrow_bias[n, :, i, j].tolist() if is_stroke[n, i, j] else color_bins if is_near else [IGNORE] * 3
                )
                assert wide_bias[n, :, i, j].tolist() == expected


@pytest.mark.parametrize("value", [0, 9])
def test_recolored_digits_have_the_mean_color_and_the_same_strokes(digits: ColoredMNIST, value: int) -> None:
    split, index = digits.splits["test"], torch.arange(100)
    official_split = replace(split, images=split.pixels(index).permute(0, 2, 3, 1).contiguous())
    for original_split in (split, official_split):
        recolored_split = original_split.recolored(value)
        assert torch.equal(recolored_split.y, split.y)
        assert torch.equal(recolored_split.row, split.row)
        assert torch.equal(recolored_split.group, split.y * 10 + value)
        pixels = recolored_split.pixels(index)
        for i in range(0, 100, 9):
            for row, column in torch.cartesian_prod(torch.arange(28), torch.arange(28)).tolist():
                expected = MEANS[value] if split.strokes[i, row, column] else (0, 0, 0)
                assert tuple(pixels[i, :, row, column].tolist()) == expected
