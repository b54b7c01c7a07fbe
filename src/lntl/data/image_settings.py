"""Settings of all data sets of image files: how images are read, cropped, augmented and cached."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from lntl.plugins import Settings, conflict

Fit = Literal["crop", "stretch", "pad"]
# Ratio of the side of the stored square to `size`, which leaves room for crops: 256 to 224. Source: torchvision's
# reference training of ImageNet models.
STORED_TO_SIZE = 8 / 7


class Normalise(Settings):
    """Mean and standard deviation of red, green and blue, on the [0, 1] scale."""

    mean: list[float] = Field(min_length=3, max_length=3, description="Means that are subtracted from the channels.")
    std: list[PositiveFloat] = Field(
        min_length=3, max_length=3, description="Standard deviations by which the channels are divided."
    )


# Source: the statistics that torchvision's pretrained models expect.
IMAGENET = Normalise(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def _replace_name(value: Any) -> Any:
    if isinstance(value, str) and value != "imagenet":
        raise ValueError("imagenet, or {mean: [r, g, b], std: [r, g, b]}")
    return IMAGENET if value == "imagenet" else value


# A name is replaced before validation: for a union, pydantic reports one error for each member.
Normalisation = Annotated[
    Normalise, BeforeValidator(_replace_name, json_schema_input_type=Literal["imagenet"] | Normalise)
]


RandomColors = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of the training images in random colors: each channel becomes a random positive sum of the "
        "channels, standardised over the image, with random contrast and brightness.",
    ),
]


RandomInvert = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of the channels of images in random colors that are inverted; 0.5 also hides which of two "
        "colors is brighter. It needs random_colors.",
    ),
]


def check_random_colors(grayscale: bool, random_colors: float, random_invert: float) -> None:
    """Raise an error of the configuration if gray images would get random colors, or other images inverted channels."""
    if grayscale and random_colors:
        raise conflict("grayscale: true excludes random_colors; set only one of them")
    if random_invert and not random_colors:
        raise conflict("random_invert needs random_colors; set random_colors: 1.0, or remove random_invert")


class ImageSettings(Settings):
    """Settings of reading images, from the file to the tensor."""

    size: int = Field(64, ge=1, le=4096, description="Side of the square that the network sees, in pixels.")
    fit: Fit = Field(
        "crop",
        description="How an image becomes a square: `crop` takes the middle, `stretch` resizes both sides, `pad` "
        "adds black borders.",
    )
    crop: Literal["none", "shift", "resized"] = Field(
        "none",
        description="Random crop in training: `shift` takes a window of `size` from an image of 8/7 its side, "
        "`resized` resizes a part of random area and shape to `size`; evaluation takes the middle window.",
    )
    crop_scale: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Smallest share of the area that `crop: resized` takes; torchvision's default is 0.08.",
    )
    flip: bool = Field(False, description="Mirror half of the training images, left to right.")
    randaugment: int = Field(
        0, ge=0, le=16, description="Random operations on each training image (RandAugment, Cubuk et al., 2020)."
    )
    randaugment_magnitude: int = Field(9, ge=0, le=30, description="Strength of the random operations, from 0 to 30.")
    random_colors: RandomColors = 0.0
    random_invert: RandomInvert = 0.0
    normalise: Normalisation = Field(
        IMAGENET, description="`imagenet`, or {mean: [r, g, b], std: [r, g, b]} on the [0, 1] scale."
    )
    grayscale: bool = Field(
        False, description="Use gray images in training and evaluation: the luma in all three channels."
    )
    white: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Value that becomes white in images with more than 8 bits; null: 255, 1023, 4095, "
        "16383 or 65535 (8 to 16 bits), the smallest of these values that no training image exceeds.",
    )
    cache: Literal["none", "memory", "disk"] = Field(
        "none", description="Where decoded images are cached from the first epoch on."
    )
    cache_dir: str = Field(
        "data/image_cache",
        description="Folder of `cache: disk`; runs and processes may share it. It grows with each new image, size and "
        "fit until `lntl data clear-cache` empties it.",
    )
    workers: int = Field(
        0, ge=0, le=256, description="Number of threads that read ahead; the images do not depend on it."
    )

    @model_validator(mode="after")
    def _check_colors(self) -> Self:
        check_random_colors(self.grayscale, self.random_colors, self.random_invert)
        return self

    @property
    def stored_side(self) -> int:
        """Side of the square that is decoded and cached, in pixels: `size`, or larger if training crops images."""
        return self.size if self.crop == "none" else math.ceil(self.size * STORED_TO_SIZE)
