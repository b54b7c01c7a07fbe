"""Write the starter project into an empty folder."""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np

from lntl.errors import UserError
from lntl.starter.drawing import labels, picture

TEMPLATES = ("config.yaml", "README.md", "Makefile")
SEED = 0


def begin(folder: Path) -> int:
    """Write the project; return the number of pictures. Raises UserError where the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not an empty folder; name a new one, so that nothing of yours is written over")
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
        for number, (shape, background, split) in enumerate(labels(), start=1):
            name = f"images/{number:04d}.png"
            picture(shape, background, random).save(folder / "data" / name)
            table.writerow([name, shape, background, split])
    return number
