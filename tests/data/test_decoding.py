"""Any image file becomes an upright square of 8-bit RGB, or the error names the file and the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import gradient
from PIL import Image, ImageFile

from lntl.data.decoding import FORMATS, UnreadableImageError, check_header, decode

ORIENTATION = 0x0112  # the EXIF tag


def saved(path: Path, image: Image.Image | NDArray[Any], **options: Any) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def close(a: NDArray[Any], b: NDArray[Any], tolerance: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).max()) <= tolerance


# --- geometry ---


@pytest.mark.parametrize(("width", "height"), [(20, 20), (30, 20), (20, 31), (7, 5), (90, 20)])
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_a_picture_is_fitted_into_the_square(tmp_path: Path, width: int, height: int, fit: Any) -> None:
    image = Image.fromarray(gradient(width, height))
    edge, side = min(width, height), 12
    left, top = (width - edge) // 2, (height - edge) // 2
    if fit == "crop":
        expected = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BILINEAR)
    elif fit == "stretch":
        expected = image.resize((side, side), Image.Resampling.BILINEAR)
    else:
        inner = round(width * side / max(width, height)), round(height * side / max(width, height))
        expected = Image.new("RGB", (side, side))
        expected.paste(image.resize(inner, Image.Resampling.BILINEAR), ((side - inner[0]) // 2, (side - inner[1]) // 2))
    half_a_pixel = 0 if (width - edge) % 2 == (height - edge) % 2 == 0 else 255 / (2 * (edge - 1)) + 1
    inside = slice(1, -1) if fit == "crop" else slice(None)  # at its edges the window also sees what lies beyond
    found = decode(saved(tmp_path / "a.png", image), side, fit)
    tolerance = half_a_pixel if fit == "crop" else 0
    assert close(found[inside, inside], np.asarray(expected)[inside, inside], tolerance)


def test_a_thin_picture_is_padded_to_a_line(tmp_path: Path) -> None:
    white = np.full((500, 1, 3), 255, np.uint8)
    found = decode(saved(tmp_path / "a.png", white), 9, "pad")
    assert (found[:, 4] == 255).all()
    assert found.sum() == 255 * 9 * 3


@pytest.mark.parametrize("size", [(1600, 1200), (800, 801), (130, 2000)])
def test_a_large_jpeg_decoded_at_a_fraction_looks_as_if_decoded_in_full(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path / "a.jpg", gradient(*size), quality=95)
    with Image.open(path) as image:
        edge = min(size)
        box = ((size[0] - edge) / 2, (size[1] - edge) / 2, (size[0] + edge) / 2, (size[1] + edge) / 2)
        full = image.resize((40, 40), Image.Resampling.BILINEAR, box=box)
    assert close(decode(path, 40, "crop"), np.asarray(full), 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str) -> None:
    """Each orientation is made from the upright picture by the inverse of what the standard asks viewers to do."""
    upright = gradient(16, 16)
    stored_as = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    wrong = []
    for orientation, stored in stored_as.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = saved(tmp_path / f"a.{kind}", np.ascontiguousarray(stored), exif=exif)
        if not close(decode(path, 16, "crop"), upright, 25 if kind in ("jpg", "webp") else 0):  # these two are lossy
            wrong.append(orientation)
    assert wrong == []


# --- colour modes ---


def test_grey_and_one_bit_and_palette_pictures(tmp_path: Path) -> None:
    grey = gradient(16, 16)[:, :, 0]
    as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    assert close(decode(saved(tmp_path / "l.png", grey), 16, "crop"), as_rgb, 0)
    one_bit = Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1")
    expected = np.where(as_rgb > 127, 255, 0)
    assert close(decode(saved(tmp_path / "1.png", one_bit), 16, "crop"), expected, 0)
    palette = Image.fromarray(gradient(16, 16)).quantize(256)
    assert palette.mode == "P"
    assert close(decode(saved(tmp_path / "p.png", palette), 16, "crop"), np.asarray(palette.convert("RGB")), 0)
    assert close(decode(saved(tmp_path / "p.gif", palette), 16, "crop"), np.asarray(palette.convert("RGB")), 0)


def test_cmyk(tmp_path: Path) -> None:
    image = Image.fromarray(gradient(16, 16))
    for name in ("a.jpg", "a.tif"):
        path = saved(tmp_path / name, image.convert("CMYK"))
        with Image.open(path) as stored:
            assert stored.mode == "CMYK"
        assert close(decode(path, 16, "crop"), np.asarray(image), 30 if name == "a.jpg" else 1)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_by_their_full_range(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 30 * 30).astype(np.uint16).reshape(30, 30)
    found = decode(saved(tmp_path / f"a.{kind}", values), 30, "crop")
    assert close(found, np.repeat((values / 65535 * 255).round()[:, :, None], 3, axis=2), 0)


def test_32_bits_are_read_if_their_values_fit_16_and_refused_otherwise(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).astype(np.int32).reshape(16, 16)
    assert decode(saved(tmp_path / "a.tif", values), 16, "crop")[-1, -1].tolist() == [255] * 3
    with pytest.raises(UnreadableImageError, match=r"a\.tif: its pixels go from 0 to 131070, and only 8-bit"):
        decode(saved(tmp_path / "a.tif", values * 2), 16, "crop")
    with pytest.raises(UnreadableImageError, match=r"32-bit integers up to 255, and only"):
        decode(saved(tmp_path / "a.tif", values // 257 * 200 // 255), 16, "crop")
    with pytest.raises(UnreadableImageError, match=r"floating-point numbers of unknown range"):
        decode(saved(tmp_path / "a.tif", values.astype(np.float32)), 16, "crop")


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparent_places_are_white_in_proportion(tmp_path: Path, alpha: int) -> None:
    rgb = gradient(16, 16)
    expected = (rgb * (alpha / 255) + 255 * (1 - alpha / 255)).round()
    rgba = np.concatenate([rgb, np.full((16, 16, 1), alpha, np.uint8)], axis=2)
    assert close(decode(saved(tmp_path / "rgba.png", rgba), 16, "crop"), expected, 1)
    grey = Image.fromarray(rgba[:, :, [0, 3]].copy(), "LA")
    assert close(decode(saved(tmp_path / "la.png", grey), 16, "crop"), expected[:, :, [0, 0, 0]], 1)


def test_a_transparent_color_of_a_palette_or_of_an_opaque_mode_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([10, 20, 30] * 256)
    path = saved(tmp_path / "p.png", palette, transparency=3)
    assert (decode(path, 8, "crop") == 255).all()
    red = np.zeros((8, 8, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    assert (decode(saved(tmp_path / "t.png", red, transparency=(200, 0, 0)), 8, "crop") == 255).all()
    assert (decode(saved(tmp_path / "o.png", red, transparency=(0, 0, 9)), 8, "crop") == red).all()


# --- what is refused ---


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(path, 8, "crop")
    assert str(caught.value).startswith(f"{path}: {caught.value.reason}; replace the file or ")
    return caught.value.reason


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.png") == "no such file or directory"
    assert refusal(tmp_path) == "is a directory"
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png") == "an empty file"
    (tmp_path / "text.png").write_text("hello")
    assert refusal(tmp_path / "text.png").startswith("not an image of a known format (JPEG, PNG,")


def test_postscript_is_a_program_and_is_not_run(tmp_path: Path) -> None:
    Image.fromarray(gradient(8, 8)).save(tmp_path / "a.eps")
    assert "EPS" not in FORMATS
    assert refusal(tmp_path / "a.eps").startswith("not an image of a known format")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"])
def test_half_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{kind}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert refusal(path)


@pytest.mark.parametrize("allowed", [100, 300])  # 400 pixels: above the limit, and above twice the limit
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    path = saved(tmp_path / "a.png", gradient(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", allowed)
    assert "perhaps a decompression bomb" in refusal(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert decode(path, 8, "crop").shape == (8, 8, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_if_warnings_are_not_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", gradient(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "perhaps a decompression bomb" in refusal(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "jp2"])
@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Tag data|Metadata).*:UserWarning")  # Pillow tells of damaged tags
def test_damage_anywhere_is_refused_or_decoded(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if kind in ("jpg", "png", "webp", "tif") else {}
    whole = saved(tmp_path / f"whole.{kind}", gradient(24, 20), **options).read_bytes()
    random, path, outcomes = np.random.default_rng(1), tmp_path / f"a.{kind}", set()
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, random.choice([60, len(whole)]), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            outcomes.add(decode(path, 8, "crop").shape)
        except UnreadableImageError as error:
            outcomes.add(type(error))
    assert outcomes <= {(8, 8, 3), UnreadableImageError}
    assert UnreadableImageError in outcomes


def test_only_the_header_is_read_on_request(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.png", noise)
    path.write_bytes(path.read_bytes()[:5000])
    check_header(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert "truncated" in refusal(path) or "broken" in refusal(path)
    with pytest.raises(UnreadableImageError, match="no such file"):
        check_header(tmp_path / "none.png")
