"""From an image file to a square of 8-bit RGB: upright, without alpha, or refused with the reason."""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lntl.data.image_settings import Fit
from lntl.errors import UserError

# Formats that are pixels alone; EPS, for one, is a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
# What Pillow's decoders raise for damaged files; `Warning` where the user has made errors of warnings.
_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    StructError,
    zlib.error,
    Warning,
)
_INTEGERS = "and only integers of 8 or 16 bits are read"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class UnreadableImageError(UserError):
    """An image file that cannot be used; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace the file or take it out of the data set")
        self.reason = reason


def decode(path: Path, side: int, fit: Fit) -> NDArray[np.uint8]:
    """Return the image as (side, side, 3) uint8, turned upright as its EXIF data say, on white where it is transparent.

    Shrinks with antialiasing (bilinear); a large JPEG is decoded at a fraction of its size, at least twice `side`.
    Raises UnreadableImageError.
    """
    with _opened(path) as image:
        image.draft(None, (2 * side, 2 * side))
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(_square(_rgb(image, path), side, fit))


def upright(image: Path | Image.Image, place: int = 0) -> NDArray[np.uint8]:
    """Return a file's or a picture's (H, W, 3) uint8 as `decode`, in its own size; `place` is a picture's number."""
    if isinstance(image, Image.Image):
        return np.asarray(_rgb(ImageOps.exif_transpose(image), Path(f"image {place}")))
    with _opened(image) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return np.asarray(_rgb(opened, image))


def squared(picture: Image.Image, place: int, side: int, fit: Fit) -> NDArray[np.uint8]:
    """Return picture number `place` as `decode` does its file; a large JPEG is here decoded in full."""
    return np.asarray(_square(_rgb(ImageOps.exif_transpose(picture), Path(f"image {place}")), side, fit))


def check_header(path: Path) -> None:
    """Raise UnreadableImageError where the file is missing, no image, or too large; its pixels are not read."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow refuses from twice that on
                raise Image.DecompressionBombError
            yield image
    except _BOMBS as error:
        limit = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        raise UnreadableImageError(path, f"larger than {limit}, perhaps a decompression bomb") from error
    except _FAULTS as error:
        raise UnreadableImageError(path, _reason(path, error)) from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        known = f"not an image of a known kind ({', '.join(FORMATS)}), or damaged where it begins"
        return "an empty file" if path.stat().st_size == 0 else known
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"a damaged image ({error or type(error).__name__})"


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    """Return the image in 8-bit RGB: 16 bits are scaled by their full range, transparent places become white."""
    if image.mode.startswith("I"):
        _check_bits(image, path)
        return _from_16_bit(np.asarray(image).astype(np.int64), path)
    if image.mode == "F":
        raise UnreadableImageError(path, f"its pixels are floating-point numbers of unknown range, {_INTEGERS}")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _check_bits(image: Image.Image, path: Path) -> None:
    """Raise UnreadableImageError for integers of 32 bits that may be of 8: scaled as 16 bits they would be black.

    Of the formats with mode I, PNG and PPM hold 16 bits; a picture that is no file has no format.
    """
    if image.mode == "I" and image.format not in ("PNG", "PPM") and 0 < np.asarray(image).max() <= 255:
        raise UnreadableImageError(path, f"its pixels are integers of 32 bits up to 255, {_INTEGERS}")


def _from_16_bit(values: NDArray[np.int64], path: Path) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError(path, f"its pixels go from {values.min()} to {values.max()}, {_INTEGERS}")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _square(image: Image.Image, side: int, fit: Fit) -> Image.Image:
    width, height = image.size
    if fit == "pad":
        scale = side / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side))
        resized = image.resize(inner, Image.Resampling.BILINEAR)
        canvas.paste(resized, ((side - inner[0]) // 2, (side - inner[1]) // 2))
        return canvas
    edge_x, edge_y = (min(image.size),) * 2 if fit == "crop" else image.size
    left, top = (width - edge_x) / 2, (height - edge_y) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + edge_x, top + edge_y))
