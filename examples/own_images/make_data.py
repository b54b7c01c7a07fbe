"""Draw data/: 6,000 PNG files of digits on textures, and table.csv that lists them.

    python make_data.py [FOLDER] [--images N]

The label is the digit: three, five or eight. In training, the texture of the background nearly always predicts the
digit, and the thickness of the stroke often does; in val and test both are random. Everything follows from one seed.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from lntl.data.colored_mnist import ColoredMNIST

DIGITS = {"three": 3, "five": 5, "eight": 8}
TEXTURES = ("stripes", "checks", "dots")  # the textures of the three digits in training, in this order
OWN_TEXTURE = 0.95  # share of the training images that have the texture of their digit
THICK = {"three": 0.1, "five": 0.5, "eight": 0.9}  # share of thick strokes in training
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
SIDE, FINE = 32, 3  # pixels; strokes are thinned and thickened on a grid FINE times as fine
FILTERS = {"thin": ImageFilter.MinFilter(3), "thick": ImageFilter.MaxFilter(5)}


def texture(name: str, random: np.random.Generator) -> np.ndarray:
    """Return a background (32, 32) in [0, 0.5] with random phase and period."""
    period, (across, down) = random.uniform(5, 7), random.uniform(0, 7, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    u, v = (x + across) * 2 * np.pi / period, (y + down) * 2 * np.pi / period
    wave = {"stripes": np.sin(u + v), "checks": np.sign(np.sin(u) * np.sin(v)), "dots": np.sin(u) + np.sin(v) - 0.7}
    return np.asarray(0.25 + 0.25 * np.clip(2 * wave[name], -1, 1))


def stroke(digit: np.ndarray, thickness: str) -> np.ndarray:
    """Return the strokes (28, 28) of 0 and 1 as coverage (32, 32) in [0, 1], thinned or thickened."""
    side = 28 * FINE
    fine = Image.fromarray(digit * np.uint8(255)).resize((side, side), Image.Resampling.BICUBIC)
    changed = fine.filter(FILTERS[thickness]).resize((28, 28), Image.Resampling.BOX)
    return np.pad(np.asarray(changed) / 255, (SIDE - 28) // 2)


def draw(folder: Path, images: int) -> None:
    """Write the images and table.csv."""
    digits = ColoredMNIST(ColoredMNIST.Config(path="none")).splits["train"]  # rendered from strokes inside the package
    random = np.random.default_rng(0)
    # MNIST is ordered by writers: shuffling puts all writers into all splits. Each digit is used once.
    of_class = {label: digits.strokes[digits.y == digit].numpy() for label, digit in DIGITS.items()}
    sources = {label: iter(strokes[random.permutation(len(strokes))]) for label, strokes in of_class.items()}
    rows = []
    for split, share in SHARES.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(round(images * share)):
            label = list(DIGITS)[number % len(DIGITS)]
            biased = split == "train"
            own = biased and random.random() < OWN_TEXTURE
            name = TEXTURES[list(DIGITS).index(label)] if own else str(random.choice(TEXTURES))
            thickness = "thick" if random.random() < (THICK[label] if biased else 0.5) else "thin"
            ink = stroke(next(sources[label]), thickness)
            picture = texture(name, random) * (1 - ink) + ink
            file = Path(split) / f"{number:04d}.png"
            Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / file)
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
    draw(args.folder, args.images)
