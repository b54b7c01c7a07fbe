"""How images are read, cropped, augmented and cached: settings that every data set of image files shares."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from lntl.plugins import Settings

Fit = Literal["crop", "stretch", "pad"]
# Side of the stored square in units of `size`, so that a crop has room: 256 for 224 px. Source: torchvision's reference
# training of ImageNet models.
ROOM = 8 / 7


class Normalise(Settings):
    """Mean and standard deviation of red, green and blue, on the [0, 1] scale."""

    mean: list[float] = Field(min_length=3, max_length=3, description="Subtracted from each channel.")
    std: list[PositiveFloat] = Field(min_length=3, max_length=3, description="What each channel is divided by.")


# Source: the statistics that torchvision's pretrained models expect.
IMAGENET = Normalise(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def _by_name(value: Any) -> Any:
    if isinstance(value, str) and value != "imagenet":
        raise ValueError("imagenet, or {mean: [r, g, b], std: [r, g, b]}")
    return IMAGENET if value == "imagenet" else value


# A name is replaced before validation: for a union, pydantic reports one error for each member.
Normalisation = Annotated[Normalise, BeforeValidator(_by_name, json_schema_input_type=Literal["imagenet"] | Normalise)]


class ImageSettings(Settings):
    """Settings of reading images, from the file to the tensor."""

    size: int = Field(64, ge=1, le=4096, description="Side of the square that the network sees, in pixels.")
    fit: Fit = Field(
        "crop",
        description="How a picture becomes a square: `crop` takes the middle, `stretch` squeezes the whole, `pad` "
        "adds black.",
    )
    crop: Literal["none", "shift", "resized"] = Field(
        "none",
        description="Cut in training: `shift` a window anywhere in a picture of 8/7 its side, `resized` a part of it "
        "of random area and shape, brought to size; evaluation takes the middle window.",
    )
    crop_scale: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Least share of the area that `crop: resized` takes; torchvision's default is 0.08.",
    )
    flip: bool = Field(False, description="Mirror half of the training images, left to right.")
    randaugment: int = Field(
        0, ge=0, le=16, description="Random operations on each training image (RandAugment, Cubuk et al., 2020)."
    )
    randaugment_magnitude: int = Field(9, ge=0, le=30, description="Their strength, from 0 to 30.")
    normalise: Normalisation = Field(
        IMAGENET, description="`imagenet`, or {mean: [r, g, b], std: [r, g, b]} on the [0, 1] scale."
    )
    grayscale: bool = Field(
        False, description="Whether the network sees grey images, the luma in all three channels, always."
    )
    white: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Value that becomes white in images with more than 8 bits; null: the highest value that 8, 10, 12, "
        "14 or 16 bits can hold, whichever fits the brightest training image.",
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
        0, ge=0, le=256, description="Threads that read ahead; the images never depend on their number."
    )

    @property
    def stored(self) -> int:
        """Side of the square that is decoded and cached, in pixels: `size`, with room to cut where a crop needs it."""
        return self.size if self.crop == "none" else math.ceil(self.size * ROOM)
