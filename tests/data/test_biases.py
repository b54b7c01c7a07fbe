"""Biases that are computed from the image, compared with slow loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_images

from lntl.data import biases
from lntl.data.images import ImageSettings, ImageSource
from lntl.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    return ImageSource(write_images(tmp_path, 5), ImageSettings(size=20))


def measure_contrast(image: np.ndarray) -> float:
    return float(image.max()) - float(image.min())


def return_text(image: np.ndarray) -> str:
    return "dark"


def return_nan(image: np.ndarray) -> float:
    return float("nan")


def raise_error(image: np.ndarray) -> float:
    raise RuntimeError("no horizon")


def read_arrays(source: ImageSource) -> np.ndarray:
    return source.pixels(torch.arange(len(source))).permute(0, 2, 3, 1).double().numpy()


def test_mean_color_and_brightness_equal_slow_loops(source: ImageSource) -> None:
    colors, brightness = biases.measure("color", source), biases.measure("brightness", source)
    assert brightness.shape == (5, 1)
    for image, measured_color, measured_brightness in zip(
        read_arrays(source), colors.tolist(), brightness[:, 0].tolist(), strict=True
    ):
        means = [sum(image[i, j, channel] for i in range(20) for j in range(20)) / 400 / 255 for channel in range(3)]
        assert measured_color == pytest.approx(means)
        assert measured_brightness == pytest.approx(0.299 * means[0] + 0.587 * means[1] + 0.114 * means[2])


@pytest.mark.parametrize(("height", "width"), [(20, 12), (5, 7), (1, 1)])
def test_center_brightness_is_measured_in_the_middle_half_of_each_side(height: int, width: int) -> None:
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, center in zip(images.tolist(), biases.center_brightness(images)[:, 0].tolist(), strict=True):
        luma = [
            0.299 * image[0][i][j] + 0.587 * image[1][i][j] + 0.114 * image[2][i][j]
            for i in range(height // 4, height - height // 4)
            for j in range(width // 4, width - width // 4)
        ]
        assert center == pytest.approx(sum(luma) / len(luma) / 255)


@pytest.mark.parametrize(("side", "edge"), [(20, 1), (32, 2), (5, 1), (1, 1)])
def test_the_background_is_the_mean_of_the_border_pixels(side: int, edge: int) -> None:
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, background in zip(images.tolist(), biases.background(images).tolist(), strict=True):
        for channel in range(3):
            border_values = [
                image[channel][i][j]
                for i in range(side)
                for j in range(side)
                if min(i, j) < edge or max(i, j) >= side - edge
            ]
            assert background[channel] == pytest.approx(sum(border_values) / len(border_values) / 255)


def test_white_is_one_and_black_is_zero() -> None:
    for value in (0, 255):
        images = torch.full((1, 3, 6, 6), value, dtype=torch.uint8)
        for function in biases.PIXEL_MEASURES.values():
            assert function(images).tolist()[0] == pytest.approx([value / 255] * function(images).shape[1])


def test_the_bias_size_is_the_size_of_the_file_in_bytes(source: ImageSource) -> None:
    source.paths[2].write_bytes(source.paths[2].read_bytes() + b"more")
    assert biases.measure("size", source)[:, 0].tolist() == [len(path.read_bytes()) for path in source.paths]


def test_a_user_function_is_called_with_each_image(source: ImageSource) -> None:
    values = biases.measure("test_biases.measure_contrast", source)
    assert values[:, 0].tolist() == [image.max() - image.min() for image in read_arrays(source)]


@pytest.mark.parametrize("name", [*biases.MEASURES, "test_biases.measure_contrast"])
def test_each_measured_number_has_a_name(source: ImageSource, name: str) -> None:
    assert biases.measure(name, source).shape == (5, len(biases.parts(name)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brigthness", "'brigthness' is not one of the computed biases; did you mean 'brightness'?"),
        ("test_biases.none", "cannot load 'test_biases.none': .*; is its folder in PYTHONPATH?"),
        ("no.such.module", "cannot load 'no.such.module': No module named 'no'; is its folder in PYTHONPATH?"),
        ("test_biases.np", "'test_biases.np' is not a function; it must take an image"),
        (
            "test_biases.raise_error",
            "test_biases.raise_error raised RuntimeError: no horizon; --debug shows the traceback",
        ),
        (
            "test_biases.return_text",
            "test_biases.return_text returned 'dark' for an image; it must return a finite number",
        ),
        ("test_biases.return_nan", "test_biases.return_nan returned nan for an image; it must return a finite number"),
    ],
)
def test_a_bias_that_cannot_be_computed_is_an_error(source: ImageSource, name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"data\.bias\.from: {message}".replace("?", r"\?")):
        biases.measure(name, source)
