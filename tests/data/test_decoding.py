"""Any image file becomes an upright square of 8-bit RGB, or the error names the file and the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import make_gradient
from PIL import Image, ImageFile

from lntl.data.decoding import FORMATS, UnreadableImageError, check_header, decode

ORIENTATION = 0x0112  # the EXIF tag


def save_image(path: Path, image: Image.Image | NDArray[Any], **options: Any) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def are_close(a: NDArray[Any], b: NDArray[Any], tolerance: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).max()) <= tolerance


# --- geometry ---


@pytest.mark.parametrize(("width", "height"), [(20, 20), (30, 20), (20, 31), (7, 5), (90, 20)])
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_an_image_is_fitted_into_the_square(tmp_path: Path, width: int, height: int, fit: Any) -> None:
    image = Image.fromarray(make_gradient(width, height))
    edge, side = min(width, height), 12
    left, top = (width - edge) // 2, (height - edge) // 2
    if fit == "crop":
        expected = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BILINEAR)
    elif fit == "stretch":
        expected = image.resize((side, side), Image.Resampling.BILINEAR)
    else:
        inner_size = round(width * side / max(width, height)), round(height * side / max(width, height))
        expected = Image.new("RGB", (side, side))
        expected.paste(
            image.resize(inner_size, Image.Resampling.BILINEAR),
            ((side - inner_size[0]) // 2, (side - inner_size[1]) // 2),
        )
    crop_tolerance = 0 if (width - edge) % 2 == (height - edge) % 2 == 0 else 255 / (2 * (edge - 1)) + 1
    # With a crop, the expected border differs: the resize filter also reads pixels outside the cropped window.
    inner_pixels = slice(1, -1) if fit == "crop" else slice(None)
    decoded_image = decode(save_image(tmp_path / "a.png", image), side, fit)
    tolerance = crop_tolerance if fit == "crop" else 0
    assert are_close(
        decoded_image[inner_pixels, inner_pixels], np.asarray(expected)[inner_pixels, inner_pixels], tolerance
    )


def test_a_thin_image_is_padded_to_a_line(tmp_path: Path) -> None:
    white = np.full((500, 1, 3), 255, np.uint8)
    decoded_image = decode(save_image(tmp_path / "a.png", white), 9, "pad")
    assert (decoded_image[:, 4] == 255).all()
    assert decoded_image.sum() == 255 * 9 * 3


@pytest.mark.parametrize("size", [(1600, 1200), (800, 801), (130, 2000)])
def test_a_large_jpeg_decoded_at_a_reduced_size_equals_one_decoded_in_full(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = save_image(tmp_path / "a.jpg", make_gradient(*size), quality=95)
    with Image.open(path) as image:
        edge = min(size)
        box = ((size[0] - edge) / 2, (size[1] - edge) / 2, (size[0] + edge) / 2, (size[1] + edge) / 2)
        expected = image.resize((40, 40), Image.Resampling.BILINEAR, box=box)
    assert are_close(decode(path, 40, "crop"), np.asarray(expected), 3)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str) -> None:
    """Each stored image is the upright image after the inverse of the rotation that the EXIF tag requires."""
    upright = make_gradient(16, 16)
    stored_images = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    mismatches = []
    for orientation, stored_image in stored_images.items():
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = save_image(tmp_path / f"a.{kind}", np.ascontiguousarray(stored_image), exif=exif)
        tolerance = 25 if kind in ("jpg", "webp") else 0  # JPEG and WebP are lossy
        if not are_close(decode(path, 16, "crop"), upright, tolerance):
            mismatches.append(orientation)
    assert mismatches == []


# --- color modes ---


def test_gray_one_bit_and_palette_images_become_rgb(tmp_path: Path) -> None:
    gray = make_gradient(16, 16)[:, :, 0]
    as_rgb = np.repeat(gray[:, :, None], 3, axis=2)
    assert are_close(decode(save_image(tmp_path / "l.png", gray), 16, "crop"), as_rgb, 0)
    one_bit_image = Image.fromarray(gray).point(lambda v: 255 * (v > 127)).convert("1")
    expected = np.where(as_rgb > 127, 255, 0)
    assert are_close(decode(save_image(tmp_path / "1.png", one_bit_image), 16, "crop"), expected, 0)
    palette_image = Image.fromarray(make_gradient(16, 16)).quantize(256)
    assert palette_image.mode == "P"
    assert are_close(
        decode(save_image(tmp_path / "p.png", palette_image), 16, "crop"), np.asarray(palette_image.convert("RGB")), 0
    )
    assert are_close(
        decode(save_image(tmp_path / "p.gif", palette_image), 16, "crop"), np.asarray(palette_image.convert("RGB")), 0
    )


def test_cmyk_images_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(make_gradient(16, 16))
    for name in ("a.jpg", "a.tif"):
        path = save_image(tmp_path / name, image.convert("CMYK"))
        with Image.open(path) as image_read:
            assert image_read.mode == "CMYK"
        assert are_close(decode(path, 16, "crop"), np.asarray(image), 30 if name == "a.jpg" else 1)


@pytest.mark.parametrize("kind", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_by_their_full_range(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65535, 30 * 30).astype(np.uint16).reshape(30, 30)
    decoded_image = decode(save_image(tmp_path / f"a.{kind}", values), 30, "crop")
    assert are_close(decoded_image, np.repeat((values / 65535 * 255).round()[:, :, None], 3, axis=2), 0)


def test_32_bits_are_read_if_their_values_fit_16_and_refused_otherwise(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256).astype(np.int32).reshape(16, 16)
    assert decode(save_image(tmp_path / "a.tif", values), 16, "crop")[-1, -1].tolist() == [255] * 3
    with pytest.raises(UnreadableImageError, match=r"a\.tif: its pixels go from 0 to 131070, and only 8-bit"):
        decode(save_image(tmp_path / "a.tif", values * 2), 16, "crop")
    with pytest.raises(UnreadableImageError, match=r"32-bit integers up to 255, and only"):
        decode(save_image(tmp_path / "a.tif", values // 257 * 200 // 255), 16, "crop")
    with pytest.raises(UnreadableImageError, match=r"floating-point numbers of unknown range"):
        decode(save_image(tmp_path / "a.tif", values.astype(np.float32)), 16, "crop")


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparent_pixels_are_blended_with_white(tmp_path: Path, alpha: int) -> None:
    rgb = make_gradient(16, 16)
    expected = (rgb * (alpha / 255) + 255 * (1 - alpha / 255)).round()
    rgba = np.concatenate([rgb, np.full((16, 16, 1), alpha, np.uint8)], axis=2)
    assert are_close(decode(save_image(tmp_path / "rgba.png", rgba), 16, "crop"), expected, 1)
    gray = Image.fromarray(rgba[:, :, [0, 3]].copy(), "LA")
    assert are_close(decode(save_image(tmp_path / "la.png", gray), 16, "crop"), expected[:, :, [0, 0, 0]], 1)


def test_a_transparent_color_of_a_palette_or_of_an_opaque_mode_is_white(tmp_path: Path) -> None:
    palette_image = Image.new("P", (8, 8), 3)
    palette_image.putpalette([10, 20, 30] * 256)
    path = save_image(tmp_path / "p.png", palette_image, transparency=3)
    assert (decode(path, 8, "crop") == 255).all()
    red = np.zeros((8, 8, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    assert (decode(save_image(tmp_path / "t.png", red, transparency=(200, 0, 0)), 8, "crop") == 255).all()
    assert (decode(save_image(tmp_path / "o.png", red, transparency=(0, 0, 9)), 8, "crop") == red).all()


# --- unreadable files ---


def decode_and_get_reason(path: Path) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(path, 8, "crop")
    assert str(caught.value).startswith(f"{path}: {caught.value.reason}; replace the file or ")
    return caught.value.reason


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path) -> None:
    assert decode_and_get_reason(tmp_path / "none.png") == "no such file or directory"
    assert decode_and_get_reason(tmp_path) == "is a directory"
    (tmp_path / "empty.png").touch()
    assert decode_and_get_reason(tmp_path / "empty.png") == "an empty file"
    (tmp_path / "text.png").write_text("hello")
    assert decode_and_get_reason(tmp_path / "text.png").startswith("not an image of a known format (JPEG, PNG,")


def test_postscript_files_are_programs_and_are_refused(tmp_path: Path) -> None:
    Image.fromarray(make_gradient(8, 8)).save(tmp_path / "a.eps")
    assert "EPS" not in FORMATS
    assert decode_and_get_reason(tmp_path / "a.eps").startswith("not an image of a known format")


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"])
def test_the_first_half_of_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save_image(tmp_path / f"a.{kind}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert decode_and_get_reason(path)


@pytest.mark.parametrize("max_pixels", [100, 300])  # 400 pixels: above the limit, and above twice the limit
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_pixels: int) -> None:
    path = save_image(tmp_path / "a.png", make_gradient(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", max_pixels)
    assert "perhaps a decompression bomb" in decode_and_get_reason(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    assert decode(path, 8, "crop").shape == (8, 8, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_if_warnings_are_not_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "a.png", make_gradient(20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "perhaps a decompression bomb" in decode_and_get_reason(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "jp2"])
@pytest.mark.filterwarnings("ignore:.*(EXIF|Truncated|Tag data|Metadata).*:UserWarning")  # Pillow warns of damaged tags
def test_damaged_files_are_refused_or_decoded(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if kind in ("jpg", "png", "webp", "tif") else {}
    intact_bytes = save_image(tmp_path / f"intact.{kind}", make_gradient(24, 20), **options).read_bytes()
    rng, path, outcomes = np.random.default_rng(1), tmp_path / f"a.{kind}", set()
    for _ in range(60):
        damaged_bytes = bytearray(intact_bytes)
        for position in rng.integers(0, rng.choice([60, len(intact_bytes)]), 3):
            damaged_bytes[position] = rng.integers(0, 256)
        path.write_bytes(damaged_bytes)
        try:
            outcomes.add(decode(path, 8, "crop").shape)
        except UnreadableImageError as error:
            outcomes.add(type(error))
    assert outcomes <= {(8, 8, 3), UnreadableImageError}
    assert UnreadableImageError in outcomes


def test_check_header_reads_only_the_header(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save_image(tmp_path / "a.png", noise)
    path.write_bytes(path.read_bytes()[:5000])
    check_header(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert "truncated" in decode_and_get_reason(path) or "broken" in decode_and_get_reason(path)
    with pytest.raises(UnreadableImageError, match="no such file"):
        check_header(tmp_path / "none.png")
