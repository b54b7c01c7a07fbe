"""RandAugment (Cubuk et al., 2020) with the operations of torchvision, chosen by numbers that are given."""

import math
from typing import Any

from torch import Tensor

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
SIGNED = OPERATIONS[1:10]  # those whose magnitude is positive or negative
TOP = 30  # the highest strength. Source: torchvision's 31 bins


def apply(image: Tensor, operation: str, strength: int, sign: int) -> Tensor:
    """Return the image (3, H, W) uint8 after one operation of a strength in [0, 30]; sign is 1 or -1."""
    from torchvision.transforms.v2 import functional as F

    share = strength / TOP
    signed = share * sign if operation in SIGNED else share
    changed: Tensor
    match operation:
        case "ShearX" | "ShearY" | "TranslateX" | "TranslateY":
            changed = F.affine(image, **_geometry(operation, signed, image))
        case "Rotate":
            changed = F.rotate(image, angle=30.0 * signed)
        case "Brightness":
            changed = F.adjust_brightness(image, 1 + 0.9 * signed)
        case "Color":
            changed = F.adjust_saturation(image, 1 + 0.9 * signed)
        case "Contrast":
            changed = F.adjust_contrast(image, 1 + 0.9 * signed)
        case "Sharpness":
            changed = F.adjust_sharpness(image, 1 + 0.9 * signed)
        case "Posterize":
            changed = F.posterize(image, bits=8 - round(4 * share))
        case "Solarize":
            changed = F.solarize(image, threshold=255.0 * (1 - share))
        case "AutoContrast":
            changed = F.autocontrast(image)
        case "Equalize":
            changed = F.equalize(image)
        case _:
            changed = image
    return changed


def _geometry(operation: str, signed: float, image: Tensor) -> dict[str, Any]:
    """Return the arguments of a shear by up to 0.3 or of a translation by up to 150/331 of the side."""
    horizontal = operation.endswith("X")
    fixed: dict[str, Any] = {"angle": 0.0, "scale": 1.0}
    if operation.startswith("Shear"):
        angle = math.degrees(math.atan(0.3 * signed))
        return fixed | {"translate": [0, 0], "shear": [angle, 0.0] if horizontal else [0.0, angle], "center": [0, 0]}
    pixels = int(150 / 331 * signed * image.shape[2 if horizontal else 1])
    return fixed | {"translate": [pixels, 0] if horizontal else [0, pixels], "shear": [0.0, 0.0]}
