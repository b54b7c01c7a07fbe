"""A starter project: a configuration, a table with drawn images, a Makefile and a README."""

import csv
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lntl.errors import UserError

TEMPLATES = ("config.yaml", "README.md", "Makefile")
SEED = 0
SIDE = 32  # pixels
SHAPES = ("circle", "square", "triangle")
BACKGROUNDS = {"sand": (194, 166, 114), "grass": (94, 140, 82), "water": (82, 122, 170)}  # RGB; each indicates a shape
# Number of images of each split, and the share of images whose background is independent of the shape.
SPLITS = {"train": (360, 0.1), "val": (135, 1.0), "test": (270, 1.0)}
_OVERSAMPLING = 4  # images are drawn larger by this factor and then reduced, so that edges are smooth
_CORNERS = {"square": 4, "triangle": 3}


def write_project(folder: Path) -> int:
    """Write the project; return the number of images. Raises UserError if the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: not an empty folder; name a new folder, because existing files are never overwritten"
        )
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    for name in TEMPLATES:
        text = (files("lntl.starter") / "templates" / name).read_text(encoding="utf-8")
        (folder / name).write_text(text, encoding="utf-8")
    random = np.random.default_rng(SEED)
    with (folder / "data" / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "shape", "background", "split"])
        number = 0
        for number, (shape, background, split) in enumerate(iterate_labels(), start=1):
            name = f"images/{number:04d}.png"
            draw_image(shape, background, random).save(folder / "data" / name)
            table.writerow([name, shape, background, split])
    return number


def iterate_labels() -> Iterator[tuple[str, str, str]]:
    """Yield shape, background and split of each image.

    All shapes are equally frequent. All backgrounds are equally frequent among images with an independent background.
    """
    backgrounds = tuple(BACKGROUNDS)
    for split, (count, share) in SPLITS.items():
        independent = round(count * share)
        for k in range(count):
            shape = k % len(SHAPES)
            background = k // len(SHAPES) % len(SHAPES) if k < independent else shape
            yield SHAPES[shape], backgrounds[background], split


def draw_image(shape: str, background: str, random: np.random.Generator) -> Image.Image:
    """Return an RGB image of a shape with random position, size, angle and gray value on a noisy background."""
    side = SIDE * _OVERSAMPLING
    image = Image.new("RGB", (side, side), BACKGROUNDS[background])
    radius = side * random.uniform(0.26, 0.4)
    x, y = side / 2 + side * random.uniform(-0.1, 0.1, 2)
    gray = int(random.choice((random.integers(0, 60), random.integers(215, 256))))
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.circle((x, y), radius, fill=(gray, gray, gray))
    else:
        corners, angle = _CORNERS[shape], random.uniform(-12, 12)
        draw.regular_polygon((x, y, radius), corners, angle, fill=(gray, gray, gray))
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    noisy = small + random.normal(0, 10, 3) + random.normal(0, 8, small.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
