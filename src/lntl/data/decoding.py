"""Decode an image file to a square of 8-bit RGB, upright and without alpha, or refuse it with a reason."""

import logging
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from struct import error as StructError

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile as PillowFile

from lntl.data.image_settings import Fit
from lntl.errors import UserError

log = logging.getLogger("lntl")

# Formats that contain only pixels; EPS, for example, is a program and not accepted.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
# Exceptions that Pillow's decoders raise for damaged files; `Warning` if the user turns warnings into errors.
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
ORIENTATION = 0x0112  # the EXIF tag
WHITE = 65535  # default white value of images with more than 8 bits
_INTEGERS = "and only 8-bit and 16-bit integers are read"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@cache
def suffixes() -> tuple[str, ...]:
    """Return the suffixes, in lower case, of the files that can be decoded."""
    return tuple(sorted(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS))


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file, for example from a column of a Parquet file, and its name in messages."""

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


ImageFile = Path | EncodedImage


class UnreadableImageError(UserError):
    """An image file that cannot be used; `reason` says why."""

    def __init__(self, path: ImageFile, reason: str) -> None:
        super().__init__(f"{path}: {reason}; replace the file or take it out of the data set")
        self.reason = reason


# Called with an image of more than 8 bits, and its highest value, if that is above white or no white value is set.
BrightCallback = Callable[[ImageFile, int], None]


@dataclass
class DepthWarnings:
    """Logs warnings about images of more than 8 bits: about each that is brighter than `white`.

    If `white` is None, because the training images have 8 bits, it logs one warning about the first image.
    """

    white: int | None
    warned: bool = False

    def __call__(self, image: ImageFile, high: int) -> None:
        """Log a warning about an image with this highest value."""
        if self.white is not None:
            log.warning(
                "%s: its highest value, %d, is above the white value of the training images and is clipped", image, high
            )
        elif not self.warned:
            self.warned = True
            log.warning(
                "%s: has more than 8 bits (highest value %d), but the training images have 8; in such images, values "
                "from 0 to %d become black to white; to change this, save them with 8 bits, or train with data.white",
                image,
                high,
                WHITE,
            )


def decode(
    path: ImageFile, side: int, fit: Fit, white: int | None = None, on_bright: BrightCallback | None = None
) -> NDArray[np.uint8]:
    """Return an image file as a square of RGB.

    The image is turned upright according to its EXIF data and resized with antialiasing (bilinear). Transparent parts
    become white. A large JPEG is decoded at a fraction of its size, at least twice `side`.

    Args:
        path: The file.
        side: Side of the square in pixels.
        fit: How the image becomes a square.
        white: Value of an image with more than 8 bits that becomes 255; None for 65535.
        on_bright: Called if a value is above `white`, because such values become 255; and for each image with more than
            8 bits if `white` is None.

    Returns:
        uint8 (side, side, 3).

    Raises:
        UnreadableImageError: If the file cannot be used.
    """
    with _open(path) as image:
        image.draft(None, (2 * side, 2 * side))
        return np.asarray(_to_square(_to_rgb(image, path, white, on_bright), side, fit))


def load_upright(
    image: Path | Image.Image, number: int = 0, on_bright: BrightCallback | None = None
) -> NDArray[np.uint8]:
    """Return a file or a PIL image like `decode`, but in its original size, uint8 (H, W, 3).

    number: Number of a PIL image in messages.
    """
    if isinstance(image, Image.Image):
        return np.asarray(_to_rgb(image, Path(f"image {number}"), on_bright=on_bright, in_place=False))
    with _open(image) as pil_image:
        return np.asarray(_to_rgb(pil_image, image, on_bright=on_bright))


def square_from_pil(
    image: Image.Image,
    number: int,
    side: int,
    fit: Fit,
    white: int | None = None,
    on_bright: BrightCallback | None = None,
) -> NDArray[np.uint8]:
    """Return a PIL image as `decode` returns a file; a large JPEG is decoded in full. `number` is for messages."""
    return np.asarray(_to_square(_to_rgb(image, Path(f"image {number}"), white, on_bright, in_place=False), side, fit))


def check_header(path: ImageFile) -> bool:
    """Return whether an image has more than 8 bits per channel; its pixels are not read.

    Raises UnreadableImageError if the file is missing, not an image, or too large.
    """
    with _open(path) as image:
        return image.mode.startswith("I") or _has_16_bit_colors(image)


def count_frames(path: ImageFile) -> int:
    """Return the number of frames or pages of a GIF, TIFF or WebP file; 1 for other files and unreadable ones."""
    if isinstance(path, EncodedImage):
        may_have_frames = path.content.startswith((b"GIF8", b"II", b"MM", b"RIFF"))
    else:
        may_have_frames = path.name.lower().endswith((".gif", ".tif", ".tiff", ".webp"))
    if not may_have_frames:
        return 1
    try:
        with _open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except UnreadableImageError:
        return 1


def has_8_bit_signature(path: Path) -> bool:
    """Return whether a file begins like a JPEG, GIF, BMP or WebP file, which have at most 8 bits, whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith((b"\xff\xd8\xff", b"GIF8", b"BM")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def has_more_than_8_bits(path: ImageFile) -> bool:
    """Return whether an image has more than 8 bits per channel; False if it cannot be read."""
    try:
        return check_header(path)
    except UnreadableImageError:
        return False


def highest_value(path: ImageFile) -> int | None:
    """Return the highest value of an image with more than 8 bits; None for others, whose pixels are not read."""
    with _open(path) as image:
        if _has_16_bit_colors(image):
            return int(_color_values(image, path)[0].max())
        return int(_gray_values(image, path).max()) if image.mode.startswith("I") else None


@contextmanager
def _open(path: ImageFile) -> Iterator[Image.Image]:
    try:
        content = BytesIO(path.content) if isinstance(path, EncodedImage) else path
        with Image.open(content, formats=FORMATS) as image:
            if image.width * image.height > (
                Image.MAX_IMAGE_PIXELS or math.inf
            ):  # Pillow itself refuses only images of twice this size
                raise Image.DecompressionBombError
            yield image
    except _BOMBS as error:
        limit = f"{(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"
        raise UnreadableImageError(path, f"larger than {limit}, perhaps a decompression bomb") from error
    except _FAULTS as error:
        raise UnreadableImageError(path, _reason(path, error)) from error


def _reason(path: ImageFile, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        reason = f"not an image of a known format ({', '.join(FORMATS)}), or its header is damaged"
        size = len(path.content) if isinstance(path, EncodedImage) else path.stat().st_size
        return reason if size else "an empty file"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror[0].lower() + error.strerror[1:]
    return f"a damaged image ({error or type(error).__name__})"


def _to_rgb(
    image: Image.Image,
    path: ImageFile,
    white: int | None = None,
    on_bright: BrightCallback | None = None,
    *,
    in_place: bool = True,
) -> Image.Image:
    """Return the image upright in 8-bit RGB: 16 bits are scaled by `white`, transparent pixels become white.

    in_place: whether the passed image may be rotated in place.
    """
    if _has_16_bit_colors(image):
        colors, alpha = _color_values(image, path)
        scaled = np.concatenate(
            [_scale_to_8_bits(colors, path, white, on_bright), _scale_to_8_bits(alpha, path)], axis=2
        )
        exif = Image.Exif()
        exif[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
        image = Image.fromarray(scaled)
        image.info["exif"] = exif.tobytes()
    if in_place:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_to_8_bits(_gray_values(image, path), path, white, on_bright)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImageError(path, f"its pixels are floating-point numbers of unknown range, {_INTEGERS}")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _has_16_bit_colors(image: Image.Image) -> bool:
    """Return whether Pillow would reduce the 16-bit channels of an image to 8 bits when it loads the image."""
    return (
        isinstance(image, PillowFile)
        and image.mode[0] != "I"
        and any(";16" in _layout(tile.args) for tile in image.tile)
    )


def _color_values(image: Image.Image, path: ImageFile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return colors (H, W, 3) and alpha (H, W, 1) of a file with 16 bits per channel; raises UnreadableImageError."""
    assert isinstance(image, PillowFile)
    channels, _, order = _layout(image.tile[0].args).partition(";16")
    if channels not in ("LA", "RGB", "RGBA", "RGBX") or not (isinstance(path, EncodedImage) or path.is_file()):
        reason = (
            f"it has 16 bits per channel in mode {channels}, and such values are read only from files in RGB or RGBA"
        )
        raise UnreadableImageError(path, f"{reason}; save it with 8 bits")
    if channels == "LA":
        values = _high_bytes(path, "RGBA")  # four bytes per pixel: the high and low bytes of gray and alpha
        values = values[..., [0, 0, 0, 2]] * 256 + values[..., [1, 1, 1, 3]]
    else:
        other_order = "L" if order == "B" or (order == "N" and sys.byteorder == "big") else "B"
        values = _high_bytes(path, f"{channels};16{order}") * 256 + _high_bytes(path, f"{channels};16{other_order}")
    colors = values[..., :3]
    alpha = values[..., 3:] if values.shape[2] == 4 else np.full_like(colors[..., :1], WHITE)
    if (transparent := image.info.get("transparency")) is not None:
        alpha = np.where((colors == transparent).all(axis=2, keepdims=True), 0, alpha)
    return colors, alpha


def _layout(args: object) -> str:
    """Return the layout of pixels in a file, such as RGB;16B, from the arguments of Pillow's decoder."""
    return str(args[0] if isinstance(args, tuple) else args)


def _high_bytes(path: ImageFile, layout: str) -> NDArray[np.int64]:
    """Return the byte of each channel that Pillow keeps, (H, W, channels).

    This is the high byte, or the low byte if `layout` has the other byte order.
    """
    with Image.open(BytesIO(path.content) if isinstance(path, EncodedImage) else path, formats=FORMATS) as image:
        assert isinstance(image, PillowFile)
        image.tile = [
            tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
            for tile in image.tile
        ]
        return np.asarray(image).astype(np.int64)


def _gray_values(image: Image.Image, path: ImageFile) -> NDArray[np.int64]:
    """Return the values of a gray image with more than 8 bits; raises UnreadableImageError if they are not 16-bit.

    32-bit integers up to 255 may stand for 8 bits: scaled as 16 bits they would be black. Among the formats with
    Pillow's mode I, only PNG and PPM contain 16 bits. A PIL image that was not opened from a file has no format.
    """
    values = np.asarray(image).astype(np.int64)
    if image.mode == "I" and image.format not in ("PNG", "PPM") and 0 < values.max() <= 255:
        raise UnreadableImageError(path, f"its pixels are 32-bit integers up to 255, {_INTEGERS}")
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError(path, f"its pixels go from {values.min()} to {values.max()}, {_INTEGERS}")
    return values


def _scale_to_8_bits(
    values: NDArray[np.int64], path: ImageFile, white: int | None = None, on_bright: BrightCallback | None = None
) -> NDArray[np.uint8]:
    """Return values from 0 to white (default WHITE) as 0 to 255; `decode` says when `on_bright` is called."""
    if on_bright is not None and (white is None or values.max() > white):
        on_bright(path, int(values.max()))
    white = white or WHITE
    scaled = (2 * 255 * values + white) // (2 * white)  # rounded; exact in integers
    return scaled.clip(max=255).astype(np.uint8)


def _to_square(image: Image.Image, side: int, fit: Fit) -> Image.Image:
    width, height = image.size
    if fit == "pad":
        scale = side / max(width, height)
        inner_size = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side))
        resized = image.resize(inner_size, Image.Resampling.BILINEAR)
        canvas.paste(resized, ((side - inner_size[0]) // 2, (side - inner_size[1]) // 2))
        return canvas
    edge_x, edge_y = (min(image.size),) * 2 if fit == "crop" else image.size
    left, top = (width - edge_x) / 2, (height - edge_y) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + edge_x, top + edge_y))
