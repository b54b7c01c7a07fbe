"""Compare Biased-MNIST and the Colored MNIST of LfF with slow loops that follow the published protocols."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from lntl.data import mnist
from lntl.data.biased_mnist import BACKGROUNDS, FOREGROUNDS, BiasedMNIST, PaintedDigits
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.lff_colored_mnist import MEANS, STDS, LfFColoredMNIST, TintedDigits
from lntl.data.transforms import EPSILON, mix_channels
from lntl.types import Dataset, RecolorableSplit, Split

# The number of training digits of each class in MNIST.
DIGITS_PER_CLASS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def make_biased_mnist(**settings: Any) -> BiasedMNIST:
    return BiasedMNIST(BiasedMNIST.Config(**settings))


def make_lff_mnist(**settings: Any) -> LfFColoredMNIST:
    return LfFColoredMNIST(LfFColoredMNIST.Config(**settings))


def get_painted_split(data: BiasedMNIST, name: str) -> PaintedDigits:
    split = data.splits[name]
    assert isinstance(split, PaintedDigits)
    return split


def get_tinted_split(data: LfFColoredMNIST, name: str) -> TintedDigits:
    split = data.splits[name]
    assert isinstance(split, TintedDigits)
    return split


def count_groups(y: torch.Tensor, color: torch.Tensor) -> Counter[tuple[int, int]]:
    return Counter(zip(y.tolist(), color.tolist(), strict=True))


def test_the_packaged_digits_are_mnist() -> None:
    (train, y), (test, test_y) = mnist.read("train"), mnist.read("test")
    assert (train.shape, test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert torch.bincount(y).tolist() == DIGITS_PER_CLASS
    assert test_y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert int(train.long().sum()) == 1567298545  # the sum of the pixels of the original files


@pytest.mark.parametrize("correlation", [0.999, 0.997, 0.995, 0.99, 1.0])
def test_the_training_set_has_the_published_group_sizes(correlation: float) -> None:
    split = get_painted_split(make_biased_mnist(correlation=correlation, val_split_ratio=0), "train")
    counts = count_groups(split.y, split.background)
    assert len(split) == 60000
    for label, n in enumerate(DIGITS_PER_CLASS):
        num_conflicting = n - int(n * correlation)
        max_size = math.ceil(num_conflicting / 9)
        group_sizes = [max(0, min(max_size, num_conflicting - k * max_size)) for k in range(9)]
        assert counts[label, label] == n - num_conflicting
        assert sorted(counts[label, c] for c in range(10) if c != label) == sorted(group_sizes)


def test_the_test_set_has_every_color_equally_often() -> None:
    split = get_painted_split(make_biased_mnist(), "test")
    counts = count_groups(split.y, split.background)
    for label, n in enumerate(torch.bincount(split.y).tolist()):
        assert sum(counts[label, c] for c in range(10)) == n
        assert max(counts[label, c] for c in range(10)) - min(counts[label, c] for c in range(10)) <= 9


@pytest.mark.parametrize("two_colors", [False, True])
def test_the_pixels_follow_the_protocol(two_colors: bool) -> None:
    data = make_biased_mnist(foreground_correlation=0.9 if two_colors else None, max_images=100)
    split, images = get_painted_split(data, "test"), mnist.read("test")[0]
    index = torch.tensor([3, 0, 57])
    pixels = split.pixels(index)
    backgrounds = list(BACKGROUNDS.values())
    # A digit with the foreground value k has the color at (k + 1) % 10 of this list, as in the published code.
    published_colors = [
        (255, 50, 50), (50, 255, 50), (50, 50, 255), (225, 225, 50), (225, 50, 225),
        (50, 255, 255), (255, 128, 50), (255, 50, 128), (128, 50, 255), (50, 50, 50),
    ]  # fmt: skip
    assert list(FOREGROUNDS.values()) == [published_colors[(k + 1) % 10] for k in range(10)]
    for image, number in zip(pixels.permute(0, 2, 3, 1).tolist(), index.tolist(), strict=True):
        background = backgrounds[int(split.background[number])]
        foreground = (
            (255, 255, 255) if split.foreground is None else published_colors[(int(split.foreground[number]) + 1) % 10]
        )
        for y in range(28):
            for x in range(28):
                assert tuple(image[y][x]) == (background if images[number, y, x] == 0 else foreground)
    x = split.batch(index).x
    torch.testing.assert_close(x, (pixels.float() / 255 - 0.5) / 0.5)


def test_the_two_colors_are_independent_biases() -> None:
    data = make_biased_mnist(correlation=0.9, foreground_correlation=0.99, val_split_ratio=0)
    split = get_painted_split(data, "train")
    assert split.foreground is not None
    is_background_aligned, is_foreground_aligned = split.background == split.y, split.foreground == split.y
    assert float(is_background_aligned.float().mean()) == pytest.approx(0.9, abs=1e-3)
    assert float(is_foreground_aligned.float().mean()) == pytest.approx(0.99, abs=1e-3)
    assert float((is_background_aligned & is_foreground_aligned).float().mean()) == pytest.approx(0.9 * 0.99, abs=2e-3)
    batch = split.batch(torch.arange(500))
    assert torch.equal(batch.bias, torch.stack([split.background[:500], split.foreground[:500]], dim=1))
    assert torch.equal(batch.group, batch.y * 100 + batch.bias[:, 0] * 10 + batch.bias[:, 1])
    assert [bias.name for bias in data.spec.biases] == ["background", "digit color"]
    for number, bias in enumerate(data.spec.biases):
        assert bias.value_of_joint[batch.group[0] % 100] == batch.bias[0, number]


def test_the_color_of_the_digit_may_have_the_correlation_of_the_background() -> None:
    same = make_biased_mnist(correlation=0.9, foreground_correlation="same", max_images=500).splits["train"]
    equal = make_biased_mnist(correlation=0.9, foreground_correlation=0.9, max_images=500).splits["train"]
    index = torch.arange(len(same))
    assert torch.equal(same.batch(index).x, equal.batch(index).x)
    assert torch.equal(same.batch(index).bias, equal.batch(index).bias)


DATA_SETS = [make_biased_mnist, make_lff_mnist]


@pytest.mark.parametrize("build", DATA_SETS)
def test_val_is_held_out_of_train_or_has_train_digits_in_new_colors(build: Any) -> None:
    splits = build(val_split_ratio=0.1).splits
    rows = {name: set(splits[name].row.tolist()) for name in ("train", "val")}
    assert rows["train"].isdisjoint(rows["val"])
    assert len(rows["train"]) == 54000
    assert rows["train"] | rows["val"] == set(range(60000))
    without_val = build(val_split_ratio=0)
    assert [len(without_val.splits[name]) for name in ("train", "val", "test")] == [60000, 6000, 10000]
    assert without_val.val_note.endswith("no digit is held out")
    assert compute_aligned_share(splits["val"]) == pytest.approx(0.1, abs=0.01)
    assert compute_aligned_share(build(val_coloring="biased").splits["val"]) > 0.98


def compute_aligned_share(split: Split) -> float:
    return float((split.y == split.group % 10).float().mean())


@pytest.mark.parametrize("build", DATA_SETS)
def test_max_images_takes_the_first_images(build: Any) -> None:
    small_splits, full_splits = build(max_images=300).splits, build().splits
    assert len(small_splits["train"]) + len(small_splits["val"]) == len(small_splits["test"]) == 300
    for name, split in small_splits.items():
        index = torch.arange(len(split))
        expected, batch = full_splits[name].batch(index), split.batch(index)
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.row, expected.row)
        assert torch.equal(batch.bias, expected.bias)


@pytest.mark.parametrize("build", DATA_SETS)
def test_the_images_depend_on_the_seed(build: Any) -> None:
    index = torch.arange(200)
    first_batch, second_batch, other_batch = (
        build(seed=seed, max_images=2000).splits["train"].batch(index) for seed in (0, 0, 1)
    )
    assert torch.equal(first_batch.x, second_batch.x)
    assert not torch.equal(first_batch.x, other_batch.x)


@pytest.mark.parametrize("build", DATA_SETS)
def test_recolored_digits_have_one_color(build: Any) -> None:
    split = build(max_images=100).splits["test"]
    recolored_split = split.recolored(4)
    assert set((recolored_split.group % 10).tolist()) == {4}
    assert torch.equal(recolored_split.y, split.y)
    assert not torch.equal(recolored_split.pixels(torch.arange(9)), split.pixels(torch.arange(9)))


@pytest.mark.parametrize("build", DATA_SETS)
def test_augmentation_depends_only_on_seed_and_row(build: Any) -> None:
    data = build(rotation=30.0, random_colors=0.5, max_images=500)
    split, unaugmented_split = data.splits["train"], build(max_images=500).splits["train"]
    index, larger_index = torch.tensor([7, 3]), torch.arange(20)
    x = split.augmented(5).batch(index).x
    assert torch.equal(x, split.augmented(5).batch(larger_index).x[index])
    assert not torch.equal(x, split.augmented(6).batch(index).x)
    assert torch.equal(split.batch(index).x, unaugmented_split.batch(index).x)
    assert torch.equal(unaugmented_split.augmented(5).batch(index).x, unaugmented_split.batch(index).x)


def test_rotate_by_a_right_angle_equals_rot90() -> None:
    image = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    rotated_images = mnist.rotate(image, torch.tensor([math.pi / 2, 0.0]))
    torch.testing.assert_close(rotated_images[0], image[0].rot90(1, (1, 2)), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotated_images[1], image[1], atol=1e-5, rtol=0)


def test_mix_channels_equals_slow_loops() -> None:
    rng = torch.Generator().manual_seed(0)
    image, weights, contrast, brightness = (
        torch.rand(2, *shape, generator=rng) for shape in ((3, 4, 5), (3, 3), (3,), (3,))
    )
    mixed_image = mix_channels(image, weights, contrast, brightness)
    for n in range(2):
        for c in range(3):
            sums = np.array(
                [
                    [sum(float(weights[n, c, k] * image[n, k, y, x]) for k in range(3)) for x in range(5)]
                    for y in range(4)
                ]
            )
            standardised_channel = (sums - sums.mean()) / (sums.std() + EPSILON)
            expected = standardised_channel * float(contrast[n, c]) + float(brightness[n, c])
            np.testing.assert_allclose(mixed_image[n, c].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("data", [make_biased_mnist(max_images=100), ColoredMNIST(ColoredMNIST.Config(max_images=100))])
def test_random_colors_remove_the_original_color(data: Dataset) -> None:
    split, index, augmentation = data.splits["test"], torch.arange(50), mnist.Augmentation(0.0, 1.0)
    assert isinstance(split, RecolorableSplit)
    first_images, *other_images = (augmentation(split.recolored(color).batch(index).x, index, 7) for color in range(10))
    for x in other_images:
        torch.testing.assert_close(first_images, x, atol=0.05, rtol=0)


def test_the_configured_share_of_channels_is_inverted() -> None:
    """Random colors keep the ranks of two pixels in each channel; an inverted channel has the opposite ranks."""
    x = torch.rand(1, 3, 1, 2).expand(4000, 3, 1, 2)
    index = torch.arange(len(x))
    colored, inverted = (mnist.Augmentation(0.0, 1.0, share)(x, index, 7) for share in (0.0, 0.3))
    rank, inverted_rank = (image[..., 0] > image[..., 1] for image in (colored, inverted))
    is_inverted = (rank != inverted_rank)[..., 0]  # (N, 3)
    assert is_inverted.float().mean(dim=0).tolist() == pytest.approx([0.3] * 3, abs=0.03)
    assert float(is_inverted.all(dim=1).float().mean()) == pytest.approx(0.3**3, abs=0.01)  # independent of each other
    torch.testing.assert_close(inverted.std(dim=3), colored.std(dim=3))


def test_with_half_of_the_channels_inverted_two_colors_say_nothing_about_the_original_colors() -> None:
    """Which of two colors is brighter in a channel of the image no longer tells which one was brighter before."""
    pairs = torch.tensor(
        [[[0.9, 0.1], [0.2, 0.8], [0.5, 0.4]], [[0.1, 0.9], [0.6, 0.3], [0.2, 0.7]]]
    )  # (2, 3 channels, 2)
    index = torch.arange(4000)
    for pair in pairs:
        x = mnist.Augmentation(0.0, 1.0, 0.5)(pair[None, :, None].expand(len(index), 3, 1, 2), index, 7)
        first_is_brighter = x[:, :, 0, 0] > x[:, :, 0, 1]
        orders, counts = first_is_brighter.unique(dim=0, return_counts=True)
        assert len(orders) == 8
        assert (counts / len(index)).tolist() == pytest.approx([1 / 8] * 8, abs=0.02)


def test_random_colors_of_a_constant_image_are_finite() -> None:
    x = torch.ones(1, 3, 28, 28)
    assert torch.isfinite(mnist.Augmentation(0.0, 1.0)(x, torch.tensor([3]), 7)).all()


def test_random_colors_change_the_configured_share_of_images() -> None:
    data, unaugmented_data = make_biased_mnist(random_colors=0.3, max_images=5000), make_biased_mnist(max_images=5000)
    index = torch.arange(len(data.splits["train"]))
    x, original_x = data.splits["train"].augmented(1).batch(index).x, unaugmented_data.splits["train"].batch(index).x
    is_changed = (x != original_x).flatten(1).any(dim=1)
    assert float(is_changed.float().mean()) == pytest.approx(0.3, abs=0.03)
    colors = x[is_changed][:, :, 0, 0]  # corners are background; unchanged corners are -1 or 1
    assert float(colors.std()) > 1


@pytest.mark.parametrize("share", [0.05, 0.005])
def test_the_colors_of_lff_follow_from_the_position_in_the_file(share: float) -> None:
    split = get_tinted_split(make_lff_mnist(conflicting_share=share, val_split_ratio=0), "train")
    for label in range(10):
        colors = split.bias[split.y == label].tolist()
        n = len(colors)
        ends = np.round(n * np.cumsum([1 - share if c == label else share / 9 for c in range(10)]))
        for number in (0, 1, n // 2, n - 2, n - 1):
            assert colors[number] == int(np.min(np.nonzero(ends > number)[0]))
        assert colors == sorted(colors)
    assert float((split.y != split.bias).float().mean()) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("severity", [1, 4])
def test_the_pixels_of_lff_follow_the_protocol(severity: int) -> None:
    split = get_tinted_split(make_lff_mnist(severity=severity, max_images=2000), "test")
    means = np.array(list(MEANS.values()))
    noise = split.color.numpy() - means[split.bias.numpy()]
    is_unclipped = (split.color.numpy() > 0) & (split.color.numpy() < 1)
    assert noise[is_unclipped].std() == pytest.approx(STDS[severity - 1], rel=0.1)
    pixels, gray = split.pixels(torch.tensor([7])), split.gray[7]
    for channel in range(3):
        for y, x in ((14, 14), (10, 13), (0, 0)):
            assert int(pixels[0, channel, y, x]) == int(np.float32(gray[y, x]) * split.color[7, channel].numpy())


def test_a_correlation_outside_of_its_range_is_refused() -> None:
    for value in (0.0, 1.01, -0.5):
        with pytest.raises(ValueError, match="correlation"):
            BiasedMNIST.Config(correlation=value)
