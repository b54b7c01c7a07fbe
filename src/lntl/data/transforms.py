"""Turn stored square images into network input; augmentation depends only on the seed and the index of an image."""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lntl.data.image_settings import ImageSettings
from lntl.seeding import uniforms

# Width to height of a resized crop is at most 4/3 and at least 3/4. Source: Szegedy et al., 2015, as in torchvision.
MAX_RATIO = 4 / 3
_CROP_NUMBERS, _FLIP_NUMBERS = 4, 1  # random numbers per image for its crop and its flip
RANDOM_COLORS = 19  # random numbers per image for its colors
EPSILON = 1e-5  # added to the standard deviation of a channel before it divides


def empty_images(count: int, side: int, kind: type[np.generic]) -> Tensor:
    """Return an uninitialised tensor (count, side, side, 3) that any thread may write, even under inference mode.

    It is allocated by NumPy, which requests huge pages.
    """
    with torch.inference_mode(False):  # worker threads are outside of the caller's inference mode
        return torch.from_numpy(np.empty((count, side, side, 3), kind))


def center_crop(images: Tensor, size: int) -> Tensor:
    """Return the center (N, 3, size, size) of square images (N, 3, S, S)."""
    start = (images.shape[-1] - size) // 2
    return images[..., start : start + size, start : start + size]


def luma(pixels: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W) of uint8 pixels (N, 3, H, W) (weights of ITU-R BT.601)."""
    r, g, b = pixels.int().unbind(dim=1)
    return ((299 * r + 587 * g + 114 * b + 500) // 1000).to(torch.uint8)[:, None]


def float_luma(images: Tensor) -> Tensor:
    """Return the luma of float images (N, 3, H, W) in all channels; gray images stay bit-identical."""
    red, green, blue = images.unbind(dim=1)
    gray = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    is_gray = (images == images[:, :1]).all(dim=1, keepdim=True)
    return torch.where(is_gray, images[:, :1], gray).expand(-1, 3, -1, -1)


def normalise(pixels: Tensor, settings: ImageSettings, out: Tensor) -> None:
    """Write (pixels / 255 - mean) / std of images (N, 3, H, W) uint8 into `out` (N, H, W, 3) float32."""
    mean, std = (torch.tensor(values) for values in (settings.normalise.mean, settings.normalise.std))
    width = out.shape[2]  # the statistics repeated over a line, because operations on three numbers at a time are slow
    scale, shift = ((1 / (255 * std)).repeat(width), (-mean / std).repeat(width))
    for target, image in zip(out, pixels.permute(0, 2, 3, 1), strict=True):  # one image fits into the processor's cache
        lines = target.copy_(image).view(-1, width * 3)
        torch.addcmul(shift, lines, scale, out=lines)


def augment(images: Tensor, index: Tensor, seed: int, settings: ImageSettings) -> Tensor:
    """Crop square images (N, 3, S, S) uint8 to (N, 3, size, size), flip them and change them at random.

    The result for an image depends only on `seed` and its `index`, not on the rest of the batch.
    """
    numbers = uniforms(seed, index, _CROP_NUMBERS + _FLIP_NUMBERS + 2 * settings.randaugment).tolist()
    out = empty_images(len(images), settings.size, np.uint8)
    for target, image, random in zip(out, images, numbers, strict=True):
        result = _crop(image, random[:_CROP_NUMBERS], settings)
        if settings.flip and random[_CROP_NUMBERS] < 0.5:
            result = result.flip(-1)
        for choice, sign in zip(
            random[_CROP_NUMBERS + _FLIP_NUMBERS :: 2], random[_CROP_NUMBERS + _FLIP_NUMBERS + 1 :: 2], strict=True
        ):
            operation = OPERATIONS[int(choice * len(OPERATIONS))]
            result = apply_operation(result, operation, settings.randaugment_magnitude, 1 if sign < 0.5 else -1)
        target.copy_(result.permute(1, 2, 0))
    return out.permute(0, 3, 1, 2)


def _crop(image: Tensor, numbers: list[float], settings: ImageSettings) -> Tensor:
    side, size = image.shape[-1], settings.size
    if settings.crop == "resized":
        return _resize(image, window(side, settings.crop_scale, numbers), size)
    top, left = (int(u * (side - size + 1)) for u in numbers[:2])
    return image[:, top : top + size, left : left + size]


def window(side: int, min_area: float, numbers: list[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random part of a square, with at least a share `min_area` of its area.

    Deviation: a window that exceeds the square is clipped to it; torchvision draws again, up to ten times.
    """
    u_top, u_left, u_area, u_ratio = numbers
    area = (min_area + (1 - min_area) * u_area) * side * side
    ratio = math.exp((2 * u_ratio - 1) * math.log(MAX_RATIO))
    width = min(side, max(1, round(math.sqrt(area * ratio))))
    height = min(side, max(1, round(math.sqrt(area / ratio))))
    return int(u_top * (side - height + 1)), int(u_left * (side - width + 1)), height, width


def _resize(image: Tensor, box: tuple[int, int, int, int], size: int) -> Tensor:
    from torchvision.transforms.v2 import functional as F

    result: Tensor = F.resized_crop(image, *box, [size, size], antialias=True)
    return result


def random_colors(x: Tensor, share: float, inverted: float, numbers: Tensor) -> Tensor:
    """Return images (N, 3, H, W) of which a share has random colors (see `mix_channels`).

    The weights are absolute values of normal numbers, the brightness is normal, the contrast is uniform in [0, 1], and
    in a share `inverted` of the channels in [-1, 0].
    numbers: random numbers in [0, 1) that decide, (N, RANDOM_COLORS) float64.
    """
    chosen = numbers[:, 0] < share
    normal = torch.special.ndtri(numbers[:, 1:13].clamp(min=1e-12)).to(x)
    weights, brightness = normal[:, :9].abs().view(-1, 3, 3), normal[:, 9:]
    contrast = torch.where(numbers[:, 16:] < inverted, -numbers[:, 13:16], numbers[:, 13:16]).to(x)
    return torch.where(chosen[:, None, None, None], mix_channels(x, weights, contrast, brightness), x)


def mix_channels(x: Tensor, weights: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Return images whose channels are weighted sums of the channels of x, with a given contrast and brightness.

    The weighted sum is standardised over the image before. An image of two colors has then the same pixels whatever
    the colors are, if the weights are positive and the brighter color is at least as bright in each channel. If the
    contrast is negative as often as positive, its pixels are as likely whatever the two colors are.

    Args:
        x: Images (N, 3, H, W).
        weights: Weight of each channel of x in each channel of the result, (N, 3, 3).
        contrast: Standard deviation of each channel over the image, (N, 3); if it is negative, the channel is inverted.
        brightness: Mean of each channel over the image, (N, 3).

    Returns:
        Images (N, 3, H, W); a channel without contrast is constant.

    Source:
        The weighted sum is a random convolution of size 1 (Xu et al., "Robust and Generalizable Visual Representation
        Learning via Random Convolutions", ICLR 2021). Positive weights and the standardisation are our addition.
    """
    mixed = torch.bmm(weights, x.flatten(2))
    std, mean = torch.std_mean(mixed, dim=2, correction=0, keepdim=True)
    return ((mixed - mean) * (contrast[:, :, None] / (std + EPSILON)) + brightness[:, :, None]).view_as(x)


# --- RandAugment (Cubuk et al., 2020) with the operations of torchvision, chosen by the numbers of `augment` ---

OPERATIONS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
SIGNED_OPERATIONS = OPERATIONS[1:10]  # operations whose magnitude can be positive or negative
MAX_STRENGTH = 30  # Source: torchvision's 31 bins


def apply_operation(image: Tensor, operation: str, strength: int, sign: int) -> Tensor:
    """Return the image (3, H, W) uint8 after one operation of a strength in [0, 30]; sign is 1 or -1."""
    from torchvision.transforms.v2 import functional as F

    relative_strength = strength / MAX_STRENGTH
    signed_strength = relative_strength * sign if operation in SIGNED_OPERATIONS else relative_strength
    if operation.startswith(("Shear", "Translate")):
        return cast(Tensor, F.affine(image, **_geometry(operation, signed_strength, image)))
    functions: dict[str, Callable[[], Tensor]] = {
        "Identity": lambda: image,
        "Rotate": lambda: F.rotate(image, angle=30.0 * signed_strength),
        "Brightness": lambda: F.adjust_brightness(image, 1 + 0.9 * signed_strength),
        "Color": lambda: F.adjust_saturation(image, 1 + 0.9 * signed_strength),
        "Contrast": lambda: F.adjust_contrast(image, 1 + 0.9 * signed_strength),
        "Sharpness": lambda: F.adjust_sharpness(image, 1 + 0.9 * signed_strength),
        "Posterize": lambda: F.posterize(image, bits=8 - round(4 * relative_strength)),
        "Solarize": lambda: F.solarize(image, threshold=255.0 * (1 - relative_strength)),
        "AutoContrast": lambda: F.autocontrast(image),
        "Equalize": lambda: F.equalize(image),
    }
    return functions[operation]()


def _geometry(operation: str, signed_strength: float, image: Tensor) -> dict[str, Any]:
    """Return the arguments of a shear by up to 0.3 or of a translation by up to 150/331 of the side."""
    is_horizontal = operation.endswith("X")
    arguments: dict[str, Any] = {"angle": 0.0, "scale": 1.0}
    if operation.startswith("Shear"):
        angle = math.degrees(math.atan(0.3 * signed_strength))
        return arguments | {
            "translate": [0, 0],
            "shear": [angle, 0.0] if is_horizontal else [0.0, angle],
            "center": [0, 0],
        }
    pixels = int(150 / 331 * signed_strength * image.shape[2 if is_horizontal else 1])
    return arguments | {"translate": [pixels, 0] if is_horizontal else [0, pixels], "shear": [0.0, 0.0]}


THUMBNAIL_SIDE = 64  # largest length in pixels of the longer side


def thumbnails(pixels: Tensor, side: int = THUMBNAIL_SIDE) -> Tensor:
    """Return images (N, C, H, W) uint8 reduced so that the longer side is at most `side`."""
    factor = side / max(pixels.shape[-2:])
    if factor >= 1:
        return pixels
    size = [max(1, round(factor * length)) for length in pixels.shape[-2:]]
    return interpolate(pixels.float(), size, mode="area").round().to(torch.uint8)
