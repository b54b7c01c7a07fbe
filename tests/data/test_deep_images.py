"""Images with more than 8 bits a channel: one scale a data set, stored for prediction; nothing is cut silently."""

import json
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pictures import png_of_16_bits
from PIL import Image

from lntl.data.decoding import UnreadableImageError, decode, upright
from lntl.data.eval_transform import restore
from lntl.data.table import Table

N = 24
SIDE = 16
Images = list[NDArray[np.int64]]


def twelve_bits(channels: int = 1) -> Images:
    """Return images (SIDE, SIDE, channels) of values to 4095; every eighth is for test and may be brighter."""
    random = np.random.default_rng(0)
    images = [random.integers(0, 4096, (SIDE, SIDE, channels)) for _ in range(N)]
    images[0][0, 0] = 4095
    return images


def write(folder: Path, images: Images, kind: str = "png") -> Path:
    rows = ["image,label,bias,split"]
    for k, image in enumerate(images):
        if kind == "png":
            (folder / f"{k}.png").write_bytes(png_of_16_bits(image))
        else:
            Image.fromarray(image[..., 0].astype(np.uint16)).save(folder / f"{k}.{kind}")
        split = "test" if k % 8 == 7 else "val" if k % 8 == 6 else "train"
        rows.append(f"{k}.{kind},{'ab'[k % 2]},{'cd'[k // 2 % 2]},{split}")
    (folder / "a.csv").write_text("\n".join(rows))
    return folder / "a.csv"


def build(path: Path, **settings: Any) -> Table:
    raw = {"path": str(path), "bias": "bias", "split": "split", "size": SIDE, "check": "exist"} | settings
    return Table(Table.Config.model_validate(raw))


def scaled(image: NDArray[np.int64], white: int) -> torch.Tensor:
    """Return an image as uint8 (3, SIDE, SIDE), white being 255."""
    values = np.minimum(np.floor(image * 255 / white + 0.5), 255).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(values, (SIDE, SIDE, 3)).copy()).permute(2, 0, 1)


@pytest.mark.parametrize(("kind", "channels"), [("png", 1), ("tif", 1), ("png", 3)])
@pytest.mark.parametrize("check", ["read", "exist"])
def test_the_scale_is_that_of_the_brightest_training_image(
    tmp_path: Path, kind: str, channels: int, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = twelve_bits(channels)
    images[7][3, 3] = 5000  # of test, brighter than every training image
    path = write(tmp_path, images, kind)
    data = build(path, check=check)
    sentence = "images with more than 8 bits: values from 0 to 4095 become black to white (data.white sets another)"
    assert sentence in data.notes
    for split in data.splits.values():
        for row, pixels in zip(split.row.tolist(), split.pixels(torch.arange(len(split))), strict=True):
            assert torch.equal(pixels, scaled(images[row], 4095))
    if check == "read":
        assert f"1 images are brighter than 4095 and are clipped: {tmp_path}/7.{kind}" in data.notes
    assert data.transform is not None
    stored = restore(json.loads(json.dumps(data.transform.settings())))
    test = data.splits["test"]
    files = [tmp_path / f"{row}.{kind}" for row in test.row.tolist()]
    with caplog.at_level(logging.WARNING, "lntl"):
        assert torch.equal(stored(files), test.batch(torch.arange(len(test))).x)
    assert f"7.{kind}: its highest value, 5000, is above white of the training images and is clipped" in caplog.text


def test_white_is_a_setting(tmp_path: Path) -> None:
    images = twelve_bits()
    data = build(write(tmp_path, images), white=65535)
    train = data.splits["train"]
    assert torch.equal(train.pixels(torch.tensor([0]))[0], scaled(images[0], 65535))
    assert data.transform is not None
    assert data.transform.settings()["white"] == 65535


def test_images_of_8_bits_have_no_white(tmp_path: Path) -> None:
    path = write(tmp_path, twelve_bits())
    for k in range(N):
        Image.new("RGB", (SIDE, SIDE), (k, k, k)).save(tmp_path / f"{k}.png")
    data = build(path, check="read")
    assert data.notes == []
    assert data.transform is not None
    assert "white" not in data.transform.settings()


def test_colors_of_16_bits_are_not_cut_to_8(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colors))
    expected = scaled(colors, 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.png", SIDE, "crop"), expected)
    assert np.array_equal(upright(tmp_path / "a.png"), expected)
    alpha = np.concatenate([colors, np.full((SIDE, SIDE, 1), 65535)], axis=2)
    alpha[:4, :, 3] = 0
    (tmp_path / "b.png").write_bytes(png_of_16_bits(alpha))
    found = decode(tmp_path / "b.png", SIDE, "crop")
    assert (found[:4] == 255).all()
    assert np.array_equal(found[4:], expected[4:])
    gray = alpha[..., 2:]
    (tmp_path / "c.png").write_bytes(png_of_16_bits(gray))
    assert np.array_equal(decode(tmp_path / "c.png", SIDE, "crop")[4:, :, 0], expected[4:, :, 2])
    transparent = png_of_16_bits(colors, {b"tRNS": colors[5, 5].astype(">u2").tobytes()})
    (tmp_path / "d.png").write_bytes(transparent)
    assert decode(tmp_path / "d.png", SIDE, "crop")[5, 5].tolist() == [255, 255, 255]


def test_colors_of_16_bits_are_turned_upright(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colors, {b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0")}))
    expected = scaled(np.rot90(colors, -1), 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.png", SIDE, "crop"), expected)


def test_colors_of_16_bits_that_would_be_cut_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of_16_bits(np.ones((4, 4, 3), dtype=np.int64)))
    with Image.open(tmp_path / "a.png") as image, pytest.raises(UnreadableImageError) as caught:
        upright(image)
    assert caught.value.reason == (
        "it has 16 bits in each channel of RGB, and only RGB and RGBA in files are read; save it with 8 bits"
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_tiff_files_of_16_bit_colors(tmp_path: Path, order: str, deflate: bool) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    (tmp_path / "a.tif").write_bytes(rgb_tiff(colors, order, deflate))
    expected = scaled(colors, 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.tif", SIDE, "crop"), expected)


def rgb_tiff(values: NDArray[np.int64], order: str, deflate: bool) -> bytes:
    """Return a TIFF file of values (height, width, 3) of 16 bits, in an order of bytes, < or >."""
    height, width, _ = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if deflate else pixels
    pixels += bytes(len(pixels) % 2)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 4, 1, 8 if deflate else 1), (262, 4, 1, 2),
        (273, 4, 1, 14), (277, 4, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    head = struct.pack(f"{order}2sHI3H", b"II" if order == "<" else b"MM", 42, 14 + len(pixels), 16, 16, 16)
    return head + pixels + directory + bytes(4)


def test_damage_of_16_bit_colors_is_refused_or_decoded(tmp_path: Path) -> None:
    whole = png_of_16_bits(np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3)))
    random, path, outcomes = np.random.default_rng(1), tmp_path / "a.png", set()
    for end in (len(whole), len(whole) // 2):
        for _ in range(40):
            damaged = bytearray(whole[:end])
            for place in random.integers(0, random.choice([60, end]), 3):
                damaged[place] = random.integers(0, 256)
            path.write_bytes(damaged)
            try:
                outcomes.add(decode(path, 8, "crop").shape)
            except UnreadableImageError as error:
                outcomes.add(type(error))
    assert outcomes <= {(8, 8, 3), UnreadableImageError}
    assert UnreadableImageError in outcomes
