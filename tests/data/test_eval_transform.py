"""The evaluation transform turns files, opened images and arrays into the same tensors as the data sets."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import make_gradient, write_images
from PIL import Image

from lntl.data.arrays import Arrays
from lntl.data.colored_mnist import PIXEL_MEAN, PIXEL_STD, ColoredMNIST
from lntl.data.decoding import UnreadableImageError
from lntl.data.eval_transform import ArrayTransform, EvalTransform, FileTransform, as_floats, identity, restore
from lntl.data.images import ImageSettings, ImageSource
from lntl.errors import UserError

SETTINGS: list[dict[str, Any]] = [
    {"size": 12},
    {"size": 12, "crop": "resized", "fit": "pad"},
    {"size": 12, "grayscale": True},
    {"size": 8, "fit": "stretch", "normalise": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}},
]


def restore_from_json(transform: EvalTransform) -> EvalTransform:
    """Write the settings of the transform to JSON, read them back and return a new transform with these settings."""
    return restore(json.loads(json.dumps(transform.settings())))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Three PNG files of different sizes."""
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for path, size in zip(files, [(12, 12), (20, 15), (9, 30)], strict=True):
        Image.fromarray(make_gradient(*size)).save(path)
    return files


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_files_and_opened_images_give_the_tensors_of_the_image_source(
    paths: list[Path], settings: dict[str, Any]
) -> None:
    options = ImageSettings.model_validate(settings)
    expected = ImageSource(paths, options).load(torch.arange(3))
    for transform in (FileTransform(options), restore_from_json(FileTransform(options))):
        assert transform.shape == tuple(expected.shape[1:])
        assert torch.equal(transform(paths), expected)
        assert torch.equal(transform([str(path) for path in paths]), expected)
        assert torch.equal(transform([Image.open(path) for path in paths]), expected)
        assert torch.equal(transform(paths[1]), expected[1:2])
        assert torch.equal(transform.source(paths).load(torch.tensor([2, 0])), expected[[2, 0]])


def test_uint8_arrays_are_cropped_and_float_arrays_are_only_normalised(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 3)
    transform = FileTransform(ImageSettings(size=12, crop="shift"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = transform(paths)
    assert torch.equal(transform(pixels), expected)
    assert torch.equal(transform(torch.from_numpy(pixels).permute(0, 3, 1, 2)), expected)
    gray = pixels[..., :1]
    assert torch.equal(transform(gray), transform(np.repeat(gray, 3, axis=3)))
    floats_01 = torch.rand(2, 3, 12, 12)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected_floats = torch.stack([(floats_01[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(transform(floats_01), expected_floats)
    torch.testing.assert_close((floats_01 - transform.mean_and_std()[0]) / transform.mean_and_std()[1], expected_floats)


def test_gray_images_have_the_luma_for_files_and_arrays(paths: list[Path]) -> None:
    options = ImageSettings(size=12, grayscale=True)
    transform = restore_from_json(FileTransform(options))
    colored_pixels = ImageSource(paths, ImageSettings(size=12)).pixels(torch.arange(3)).double()
    luma = (0.299 * colored_pixels[:, 0] + 0.587 * colored_pixels[:, 1] + 0.114 * colored_pixels[:, 2]).add(0.5).floor()
    gray_pixels = ImageSource(paths, options).pixels(torch.arange(3))
    assert all(torch.equal(gray_pixels[:, channel].double(), luma) for channel in range(3))
    assert torch.equal(transform(gray_pixels), transform(paths))
    assert torch.equal(
        transform(gray_pixels / 255), (gray_pixels / 255 - transform.mean_and_std()[0]) / transform.mean_and_std()[1]
    )
    torch.testing.assert_close(transform((colored_pixels / 255).float()), transform(paths), atol=0.02, rtol=0)
    assert "luma" in transform.description
    assert "grayscale" not in FileTransform(ImageSettings(size=12)).settings()


@pytest.mark.parametrize("kind", ["uint8 gray", "uint8", "float", "vectors"])
def test_arrays_are_normalised_like_their_data_set(tmp_path: Path, kind: str) -> None:
    rng, n = np.random.default_rng(0), 40
    values = {
        "uint8 gray": rng.integers(0, 256, (n, 6, 5), dtype=np.uint8),
        "uint8": rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8),
        "float": rng.random((n, 3, 6, 5)).astype(np.float32),
        "vectors": rng.normal(9, 2, (n, 4)).astype(np.float32),
    }[kind]
    np.savez(tmp_path / "a.npz", x=values, y=np.arange(n) % 2, bias=np.arange(n) // 2 % 2)
    data = Arrays(Arrays.Config(path=str(tmp_path / "a.npz")))
    test = data.splits["test"]
    images = values[test.row.numpy()]
    images = images[..., None] if kind == "uint8 gray" else images
    expected = test.batch(torch.arange(len(test))).x
    for transform in (data.transform, restore_from_json(data.transform)):
        assert torch.equal(transform(images), expected)
        mean, std = transform.mean_and_std()
        scaled_values = test.values / (255 if values.dtype == np.uint8 else 1)
        torch.testing.assert_close((scaled_values - mean) / std, expected)
    if kind.startswith("uint8"):
        torch.testing.assert_close(data.transform(test.values / 255), expected)


@pytest.mark.parametrize("gray", [False, True])
def test_digits_are_normalised_as_in_evaluation(tmp_path: Path, gray: bool) -> None:
    data = ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100, grayscale=gray))
    colored_split = ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100)).splits["test"]
    pixels = colored_split.pixels(torch.arange(5))
    expected = data.splits["test"].batch(torch.arange(5)).x
    assert torch.equal(restore_from_json(data.transform)(pixels), expected)
    Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).save(tmp_path / "digit.png")
    assert torch.equal(data.transform(tmp_path / "digit.png"), expected[:1])
    assert torch.equal(data.transform(Image.open(tmp_path / "digit.png")), expected[:1])
    if not gray:
        c, row, column = 1, 14, 14
        expected_value = (pixels[0, c, row, column].item() / 255 - PIXEL_MEAN[c]) / PIXEL_STD[c]
        assert expected[0, c, row, column].item() == pytest.approx(expected_value, abs=1e-6)


def test_a_data_set_without_a_transform_gets_x_unchanged() -> None:
    x = 100 * torch.randn(4, 3, 5, 5)
    assert torch.equal(restore_from_json(identity((3, 5, 5)))(x), x)
    assert torch.equal(identity((6,))(np.arange(12).reshape(2, 6)), torch.arange(12.0).view(2, 6))


FILE_TRANSFORM, DIGIT_TRANSFORM, VECTOR_TRANSFORM = (
    FileTransform(ImageSettings(size=8)),
    ArrayTransform((3, 28, 28), torch.zeros(3, 1, 1), torch.ones(3, 1, 1), white=1),
    ArrayTransform((5,), torch.zeros(5), torch.ones(5)),
)


@pytest.mark.parametrize(
    ("transform", "images", "message"),
    [
        (FILE_TRANSFORM, [], r"\[\] contains no images; pass paths"),
        (FILE_TRANSFORM, 3, "3 contains no images"),
        (FILE_TRANSFORM, ["a.png", Image.new("RGB", (8, 8))], "a list of str contains no images"),
        (FILE_TRANSFORM, [np.zeros((8, 8, 3))], "a list of ndarray contains no images"),
        (FILE_TRANSFORM, np.zeros((8, 8, 3), np.uint8), r"uint8 \(8, 8, 3\) do not fit the network, .* \(N, 3, 8, 8\)"),
        (FILE_TRANSFORM, torch.zeros(2, 3, 9, 9), r"\(2, 3, 9, 9\) do not fit"),
        (FILE_TRANSFORM, np.zeros((2, 4), np.float32), r"\(2, 4\) do not fit"),
        (FILE_TRANSFORM, 2 * torch.ones(2, 3, 8, 8), "from 2 to 2; give them as uint8, or as float in"),
        (DIGIT_TRANSFORM, torch.zeros(0, 3, 28, 28), r"\(0, 3, 28, 28\) do not fit"),
        (DIGIT_TRANSFORM, np.zeros((2, 20, 28, 3), np.uint8), r"uint8 \(2, 3, 20, 28\) do not fit .* \(N, 3, 28, 28\)"),
        (
            DIGIT_TRANSFORM,
            [Image.new("RGB", (28, 20))],
            r"image 0: 20 x 28 pixels, and the network takes 28 x 28 pixels \(h",
        ),
        (VECTOR_TRANSFORM, torch.zeros(2, 4), r"\(2, 4\) do not fit the network, which takes \(N, 5\)$"),
        (VECTOR_TRANSFORM, torch.zeros(0, 5), r"\(0, 5\) do not fit"),
        (VECTOR_TRANSFORM, ["a.png"], r"takes arrays of numbers \(N, 5\), not images;"),
        (identity((3, 8, 8)), np.zeros((1, 3, 8, 8), np.uint8), r"uint8 \(1, 3, 8, 8\) do not fit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_inputs_of_a_wrong_shape_or_type_are_an_error(transform: EvalTransform, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        transform(images)
    assert re.search(r"\n|None|\*", str(error.value)) is None


def test_the_error_for_an_unreadable_image_names_it(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="image 1: its pixels are floating-point"):
        FILE_TRANSFORM([Image.new("RGB", (8, 8)), Image.new("F", (8, 8))])
    (tmp_path / "broken.png").write_bytes(b"")
    for transform in (FILE_TRANSFORM, DIGIT_TRANSFORM):
        with pytest.raises(UnreadableImageError, match=r"broken\.png: an empty file"):
            transform(tmp_path / "broken.png")


@pytest.mark.parametrize("values", [np.full((3, 5), "1"), np.full((3, 5), 1j), np.full((3, 5), None)])
def test_vectors_that_do_not_contain_numbers_are_an_error(values: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"do not fit the network, which takes \(N, 5\)"):
        as_floats(values, (5,))
