"""Images in files, read when they are asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from lntl.plugins import Settings


class ImageSettings(Settings):
    """Settings of images in files."""

    size: int = Field(64, ge=1, description="Height and width of the images, pixels; they are resized to it.")


class ImageSource:
    """Images at paths, each resized to `size` x `size` pixels."""

    def __init__(self, paths: Sequence[Path], settings: ImageSettings) -> None:
        self.paths, self.settings = paths, settings
        self.shape = (3, settings.size, settings.size)

    def __len__(self) -> int:
        return len(self.paths)

    def check(self, *, full: bool = True) -> list[tuple[int, str]]:
        """Return the position of each file that is no image, and what is wrong."""
        faults = []
        for position, path in enumerate(self.paths):
            try:
                with Image.open(path) as image:
                    if full:
                        image.load()
            except OSError as error:
                faults.append((position, str(error)))
        return faults

    def load(self, index: Tensor, seed: int | None) -> Tensor:
        """Return the images at `index`, float (N, C, H, W) in [-1, 1]."""
        return self.pixels(index).float() / 127.5 - 1

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index`, uint8 (N, 3, H, W)."""
        side = (self.settings.size, self.settings.size)
        images = []
        for position in index.tolist():
            with Image.open(self.paths[position]) as image:
                images.append(torch.from_numpy(np.array(image.convert("RGB").resize(side))))
        return torch.stack(images).permute(0, 3, 1, 2)
