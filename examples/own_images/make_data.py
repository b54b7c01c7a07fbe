"""Draw data/: 6,000 PNG files of digits on textures, and table.csv that lists them.

    python make_data.py [FOLDER] [--images N]

The label is the digit: three, five or eight. In training, the texture of the background nearly always predicts the
digit, and the thickness of the stroke often predicts it, too. In val and test, both are random. The seed is fixed.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from lntl.data.colored_mnist import ColoredMNIST

DIGITS = {"three": 3, "five": 5, "eight": 8}
TEXTURES = ("stripes", "checks", "dots")  # the textures of the three digits in training, in this order
OWN_TEXTURE_SHARE = 0.95  # share of the training images that have the texture of their digit
THICK_SHARES = {"three": 0.1, "five": 0.5, "eight": 0.9}  # share of thick strokes in training
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
SIDE = 32  # pixels
OVERSAMPLING = 3  # strokes are thinned and thickened on a grid that is finer by this factor
FILTERS = {"thin": ImageFilter.MinFilter(3), "thick": ImageFilter.MaxFilter(5)}


def draw_texture(name: str, random: np.random.Generator) -> np.ndarray:
    """Return a background (32, 32) in [0, 0.5] with random phase and period."""
    period, (shift_x, shift_y) = random.uniform(5, 7), random.uniform(0, 7, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    u, v = (x + shift_x) * 2 * np.pi / period, (y + shift_y) * 2 * np.pi / period
    wave = {"stripes": np.sin(u + v), "checks": np.sign(np.sin(u) * np.sin(v)), "dots": np.sin(u) + np.sin(v) - 0.7}
    return np.asarray(0.25 + 0.25 * np.clip(2 * wave[name], -1, 1))


def draw_stroke(digit: np.ndarray, thickness: str) -> np.ndarray:
    """Return the strokes (28, 28) of 0 and 1 as coverage (32, 32) in [0, 1], thinned or thickened."""
    side = 28 * OVERSAMPLING
    large = Image.fromarray(digit * np.uint8(255)).resize((side, side), Image.Resampling.BICUBIC)
    small = large.filter(FILTERS[thickness]).resize((28, 28), Image.Resampling.BOX)
    return np.pad(np.asarray(small) / 255, (SIDE - 28) // 2)


def write_images(folder: Path, images: int) -> None:
    """Write the images and table.csv."""
    digits = ColoredMNIST(ColoredMNIST.Config(path="none")).splits["train"]  # rendered from strokes inside the package
    random = np.random.default_rng(0)
    # MNIST is sorted by writer; after shuffling, each split has images of all writers. Each digit is used once.
    strokes_by_class = {label: digits.strokes[digits.y == digit].numpy() for label, digit in DIGITS.items()}
    sources = {label: iter(strokes[random.permutation(len(strokes))]) for label, strokes in strokes_by_class.items()}
    rows = []
    for split, share in SHARES.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(round(images * share)):
            label = list(DIGITS)[number % len(DIGITS)]
            is_biased = split == "train"
            has_own_texture = is_biased and random.random() < OWN_TEXTURE_SHARE
            name = TEXTURES[list(DIGITS).index(label)] if has_own_texture else str(random.choice(TEXTURES))
            thickness = "thick" if random.random() < (THICK_SHARES[label] if is_biased else 0.5) else "thin"
            ink = draw_stroke(next(sources[label]), thickness)
            image = draw_texture(name, random) * (1 - ink) + ink
            file = Path(split) / f"{number:04d}.png"
            Image.fromarray((image * 255).round().astype(np.uint8)).save(folder / file)
            rows.append(
                {"image": file.as_posix(), "digit": label, "texture": name, "stroke": thickness, "split": split}
            )
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} images and {folder / 'table.csv'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "data")
    parser.add_argument("--images", type=int, default=6000)
    args = parser.parse_args()
    write_images(args.folder, args.images)
