"""Biases that an image shows by itself, against slow loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import folder_of

from lntl.data import computed
from lntl.data.images import ImageSettings, ImageSource
from lntl.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    return ImageSource(folder_of(tmp_path, 5), ImageSettings(size=20))


def contrast(image: np.ndarray) -> float:
    return float(image.max()) - float(image.min())


def text(image: np.ndarray) -> str:
    return "dark"


def nothing(image: np.ndarray) -> float:
    return float("nan")


def broken(image: np.ndarray) -> float:
    raise RuntimeError("no horizon")


def arrays(source: ImageSource) -> np.ndarray:
    return source.pixels(torch.arange(len(source))).permute(0, 2, 3, 1).double().numpy()


def test_mean_colour_and_brightness(source: ImageSource) -> None:
    colors, brightness = computed.measure("color", source), computed.measure("brightness", source)
    assert brightness.shape == (5, 1)
    for image, color, bright in zip(arrays(source), colors.tolist(), brightness[:, 0].tolist(), strict=True):
        means = [sum(image[i, j, channel] for i in range(20) for j in range(20)) / 400 / 255 for channel in range(3)]
        assert color == pytest.approx(means)
        assert bright == pytest.approx(0.299 * means[0] + 0.587 * means[1] + 0.114 * means[2])


@pytest.mark.parametrize(("side", "edge"), [(20, 1), (32, 2), (5, 1), (1, 1)])
def test_the_background_is_the_frame(side: int, edge: int) -> None:
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, found in zip(images.tolist(), computed.background(images).tolist(), strict=True):
        for channel in range(3):
            frame = [
                image[channel][i][j]
                for i in range(side)
                for j in range(side)
                if min(i, j) < edge or max(i, j) >= side - edge
            ]
            assert found[channel] == pytest.approx(sum(frame) / len(frame) / 255)


def test_white_is_one_and_black_is_zero() -> None:
    for value in (0, 255):
        images = torch.full((1, 3, 6, 6), value, dtype=torch.uint8)
        for function in computed.PIXELS.values():
            assert function(images).tolist()[0] == pytest.approx([value / 255] * function(images).shape[1])


def test_the_size_is_the_files_in_bytes(source: ImageSource) -> None:
    source.paths[2].write_bytes(source.paths[2].read_bytes() + b"more")
    assert computed.measure("size", source)[:, 0].tolist() == [len(path.read_bytes()) for path in source.paths]


def test_a_function_of_the_user_sees_each_image(source: ImageSource) -> None:
    found = computed.measure("test_computed.contrast", source)
    assert found[:, 0].tolist() == [image.max() - image.min() for image in arrays(source)]


@pytest.mark.parametrize("name", [*computed.NAMES, "test_computed.contrast"])
def test_every_number_has_a_name(source: ImageSource, name: str) -> None:
    assert computed.measure(name, source).shape == (5, len(computed.parts(name)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brigthness", "'brigthness' is not one of the computed biases; did you mean 'brightness'?"),
        ("test_computed.none", "cannot load 'test_computed.none': .*; is its folder in PYTHONPATH?"),
        ("no.such.module", "cannot load 'no.such.module': No module named 'no'; is its folder in PYTHONPATH?"),
        ("test_computed.np", "'test_computed.np' is no function; it must take an image"),
        ("test_computed.broken", "test_computed.broken raised RuntimeError: no horizon; --debug shows where"),
        ("test_computed.text", "test_computed.text gave 'dark' for an image; it must give a finite number"),
        ("test_computed.nothing", "test_computed.nothing gave nan for an image; it must give a finite number"),
    ],
)
def test_what_cannot_be_computed_is_told(source: ImageSource, name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"data\.bias\.from: {message}".replace("?", r"\?")):
        computed.measure(name, source)
