"""Images with more than 8 bits per channel: one scale per data set, stored for prediction; clipping is reported."""

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
from pictures import encode_16_bit_png
from PIL import Image

from lntl.data.decoding import UnreadableImageError, decode, load_upright
from lntl.data.eval_transform import restore
from lntl.data.table import Table

N = 24
SIDE = 16
Images = list[NDArray[np.int64]]


def make_12_bit_images(channels: int = 1) -> Images:
    """Return N random images (SIDE, SIDE, channels); the highest value, 4095, is in image 0, a training image."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 4096, (SIDE, SIDE, channels)) for _ in range(N)]
    images[0][0, 0] = 4095
    return images


def write_table(folder: Path, images: Images, suffix: str = "png") -> Path:
    rows = ["image,label,bias,split"]
    for k, image in enumerate(images):
        if suffix == "png":
            (folder / f"{k}.png").write_bytes(encode_16_bit_png(image))
        else:
            Image.fromarray(image[..., 0].astype(np.uint16)).save(folder / f"{k}.{suffix}")
        split = "test" if k % 8 == 7 else "val" if k % 8 == 6 else "train"
        rows.append(f"{k}.{suffix},{'ab'[k % 2]},{'cd'[k // 2 % 2]},{split}")
    (folder / "a.csv").write_text("\n".join(rows))
    return folder / "a.csv"


def build_data(path: Path, **settings: Any) -> Table:
    raw = {"path": str(path), "bias": "bias", "split": "split", "size": SIDE, "check": "exist"} | settings
    return Table(Table.Config.model_validate(raw))


def scale_to_8_bits(image: NDArray[np.int64], white: int) -> torch.Tensor:
    """Return an image as uint8 (3, SIDE, SIDE), scaled so that `white` becomes 255."""
    values = np.minimum(np.floor(image * 255 / white + 0.5), 255).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(values, (SIDE, SIDE, 3)).copy()).permute(2, 0, 1)


@pytest.mark.parametrize(("suffix", "channels"), [("png", 1), ("tif", 1), ("png", 3)])
@pytest.mark.parametrize("check", ["read", "exist"])
def test_the_brightest_training_image_sets_the_scale(
    tmp_path: Path, suffix: str, channels: int, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = make_12_bit_images(channels)
    images[7][3, 3] = 5000  # a test image, brighter than every training image
    path = write_table(tmp_path, images, suffix)
    data = build_data(path, check=check)
    note = "images with more than 8 bits: values from 0 to 4095 become black to white (set data.white to change this)"
    assert note in data.notes
    for split in data.splits.values():
        for row, pixels in zip(split.row.tolist(), split.pixels(torch.arange(len(split))), strict=True):
            assert torch.equal(pixels, scale_to_8_bits(images[row], 4095))
    if check == "read":
        assert f"1 images are brighter than 4095 and are clipped: {tmp_path}/7.{suffix}" in data.notes
    assert data.transform is not None
    restored_transform = restore(json.loads(json.dumps(data.transform.settings())))
    test = data.splits["test"]
    paths = [tmp_path / f"{row}.{suffix}" for row in test.row.tolist()]
    with caplog.at_level(logging.WARNING, "lntl"):
        assert torch.equal(restored_transform(paths), test.batch(torch.arange(len(test))).x)
    assert (
        f"7.{suffix}: its highest value, 5000, is above the white value of the training images and is clipped"
        in caplog.text
    )


def test_the_white_value_can_be_set(tmp_path: Path) -> None:
    images = make_12_bit_images()
    data = build_data(write_table(tmp_path, images), white=65535)
    train = data.splits["train"]
    assert torch.equal(train.pixels(torch.tensor([0]))[0], scale_to_8_bits(images[0], 65535))
    assert data.transform is not None
    assert data.transform.settings()["white"] == 65535


def test_the_white_value_is_not_stored_for_8_bit_images(tmp_path: Path) -> None:
    path = write_table(tmp_path, make_12_bit_images())
    for k in range(N):
        Image.new("RGB", (SIDE, SIDE), (k, k, k)).save(tmp_path / f"{k}.png")
    data = build_data(path, check="read")
    assert data.notes == []
    assert data.transform is not None
    assert "white" not in data.transform.settings()


@pytest.mark.parametrize("check", ["read", "header", "none"])
def test_images_of_more_than_8_bits_beside_training_images_of_8_bits_are_reported(
    tmp_path: Path, check: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_table(tmp_path, make_12_bit_images())
    for k in range(N):
        if k % 8 < 6:  # a training image
            Image.new("RGB", (SIDE, SIDE), (k, k, k)).save(tmp_path / f"{k}.png")
    data = build_data(path, check=check)
    scale = "values from 0 to 65535 become black to white"
    with caplog.at_level(logging.WARNING, "lntl"):
        for split in data.splits.values():
            split.batch(torch.arange(len(split)))
    if check == "none":  # nothing was opened before
        assert data.notes == []
        assert f"{tmp_path}/6.png: has more than 8 bits (highest value " in caplog.text
        assert caplog.text.count(scale) == 1
    else:
        assert data.notes == [
            f"6 images have more than 8 bits, but the training images have 8: {scale} (set data.white to change this): "
            + ", ".join(f"{tmp_path}/{k}.png" for k in (6, 7, 14, 15, 22, 23))
        ]
        assert caplog.text == ""
    assert data.transform is not None
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lntl"):  # the transform of `lntl predict`, given files and PIL images
        restored_transform = restore(data.transform.settings())
        restored_transform([tmp_path / "7.png"])
        with Image.open(tmp_path / "7.png") as image:
            restored_transform([image])
            restore({"shape": [3, SIDE, SIDE], "mean": [0.0], "std": [1.0], "white": 255, "grey": False})([image])
    assert caplog.text.count(scale) == 3


def test_the_depth_of_an_image_does_not_depend_on_its_suffix(tmp_path: Path) -> None:
    path = write_table(tmp_path, make_12_bit_images())
    for k in range(N):
        (tmp_path / f"{k}.png").rename(tmp_path / f"{k}.jpg")
    path.write_text(path.read_text().replace(".png", ".jpg"))
    for check in ("read", "header", "exist"):
        transform = build_data(path, check=check).transform
        assert transform is not None
        assert transform.settings()["white"] == 4095


def test_the_check_of_headers_finds_the_only_image_of_more_than_8_bits(tmp_path: Path) -> None:
    """It is not among the images that are opened without this check."""
    rows = ["image,label,bias,split"]
    for k in range(200):
        Image.new("L", (2, 2), k).save(tmp_path / f"{k}.png")
        rows.append(f"{k}.png,{'ab'[k % 2]},{'cd'[k // 2 % 2]},{('train', 'val', 'test')[max(0, k - 197)]}")
    (tmp_path / "101.png").write_bytes(encode_16_bit_png(np.full((2, 2, 1), 1023)))
    (tmp_path / "a.csv").write_text("\n".join(rows))
    for check in ("read", "header"):
        transform = build_data(tmp_path / "a.csv", check=check).transform
        assert transform is not None
        assert transform.settings()["white"] == 1023


def test_16_bit_colors_are_scaled_and_not_truncated(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    (tmp_path / "a.png").write_bytes(encode_16_bit_png(colors))
    expected = scale_to_8_bits(colors, 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.png", SIDE, "crop"), expected)
    assert np.array_equal(load_upright(tmp_path / "a.png"), expected)
    rgba = np.concatenate([colors, np.full((SIDE, SIDE, 1), 65535)], axis=2)
    rgba[:4, :, 3] = 0
    (tmp_path / "b.png").write_bytes(encode_16_bit_png(rgba))
    decoded_image = decode(tmp_path / "b.png", SIDE, "crop")
    assert (decoded_image[:4] == 255).all()
    assert np.array_equal(decoded_image[4:], expected[4:])
    gray_and_alpha = rgba[..., 2:]
    (tmp_path / "c.png").write_bytes(encode_16_bit_png(gray_and_alpha))
    assert np.array_equal(decode(tmp_path / "c.png", SIDE, "crop")[4:, :, 0], expected[4:, :, 2])
    png_bytes = encode_16_bit_png(colors, {b"tRNS": colors[5, 5].astype(">u2").tobytes()})
    (tmp_path / "d.png").write_bytes(png_bytes)
    assert decode(tmp_path / "d.png", SIDE, "crop")[5, 5].tolist() == [255, 255, 255]


def test_the_exif_orientation_is_applied_to_16_bit_colors(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers rotate the image by 90 degrees clockwise
    (tmp_path / "a.png").write_bytes(encode_16_bit_png(colors, {b"eXIf": exif.tobytes().removeprefix(b"Exif\0\0")}))
    expected = scale_to_8_bits(np.rot90(colors, -1), 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.png", SIDE, "crop"), expected)


def test_opened_images_with_16_bit_colors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_16_bit_png(np.ones((4, 4, 3), dtype=np.int64)))
    with Image.open(tmp_path / "a.png") as image, pytest.raises(UnreadableImageError) as caught:
        load_upright(image)
    assert caught.value.reason == (
        "it has 16 bits per channel in mode RGB, and such values are read only from files in RGB or RGBA; "
        "save it with 8 bits"
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_tiff_files_of_16_bit_colors_are_scaled(tmp_path: Path, order: str, is_compressed: bool) -> None:
    colors = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3))
    (tmp_path / "a.tif").write_bytes(encode_rgb_tiff(colors, order, is_compressed))
    expected = scale_to_8_bits(colors, 65535).permute(1, 2, 0).numpy()
    assert np.array_equal(decode(tmp_path / "a.tif", SIDE, "crop"), expected)


def encode_rgb_tiff(values: NDArray[np.int64], order: str, is_compressed: bool) -> bytes:
    """Return a TIFF file of values (height, width, 3) of 16 bits, with byte order `order`, < or >."""
    height, width, _ = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if is_compressed else pixels
    pixels += bytes(len(pixels) % 2)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8), (259, 4, 1, 8 if is_compressed else 1), (262, 4, 1, 2),
        (273, 4, 1, 14), (277, 4, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    header = struct.pack(f"{order}2sHI3H", b"II" if order == "<" else b"MM", 42, 14 + len(pixels), 16, 16, 16)
    return header + pixels + directory + bytes(4)


def test_damaged_16_bit_files_are_decoded_or_refused(tmp_path: Path) -> None:
    intact_bytes = encode_16_bit_png(np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3)))
    rng, path, outcomes = np.random.default_rng(1), tmp_path / "a.png", set()
    for end in (len(intact_bytes), len(intact_bytes) // 2):
        for _ in range(40):
            damaged_bytes = bytearray(intact_bytes[:end])
            for position in rng.integers(0, rng.choice([60, end]), 3):
                damaged_bytes[position] = rng.integers(0, 256)
            path.write_bytes(damaged_bytes)
            try:
                outcomes.add(decode(path, 8, "crop").shape)
            except UnreadableImageError as error:
                outcomes.add(type(error))
    assert outcomes <= {(8, 8, 3), UnreadableImageError}
    assert UnreadableImageError in outcomes
