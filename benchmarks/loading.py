"""Measure how fast image files become batches with `lntl`, and with ImageFolder and a DataLoader.

Usage: python benchmarks/loading.py [--images 600] [--side 320] [--size 128] [--workers 2] [--rounds 3]
       [--out benchmarks/loading.json]

Makes JPEG files, then reads them in shuffled batches of 64 with the same steps (resize, random crop, mirror, normalise)
and the same number of workers. The two take turns, so that other load on the machine slows both. Prints and writes, for
each cache: images per second in the first and in a later epoch, and the ratios of `lntl` to the DataLoader. The first
epoch of the DataLoader includes the start of its processes, which the later epoch uses again.
"""

import argparse
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from output import write_result
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lntl.data.image_settings import IMAGENET
from lntl.data.images import ImageSettings, ImageSource
from lntl.data.loader import Loader
from lntl.types import Batch, Split

BATCH = 64
CACHES = ("none", "memory", "disk")


@dataclass(frozen=True)
class ImageSourceSplit(Split):
    """A split of an ImageSource."""

    source: ImageSource
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def row(self) -> Tensor:
        """The position of each image."""
        return torch.arange(len(self))

    @property
    def workers(self) -> int:
        """Number of threads that read batches in advance."""
        return self.source.workers

    def to(self, device: torch.device) -> "ImageSourceSplit":
        """Return the split itself: it stays on the CPU, like the batches of the DataLoader."""
        return self

    def augmented(self, seed: int) -> "ImageSourceSplit":
        """Return the split with augmentation."""
        return replace(self, seed=seed)

    def batch(self, index: Tensor) -> Batch:
        """Return the images; their positions replace all labels."""
        return Batch(self.source.load(index, self.seed), index, index, index, index, index[:, None].float())


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """Write JPEG files of smooth colors with noise, side x 3/4 side pixels, in two classes; return their paths."""
    random = np.random.default_rng(0)
    shape = (side * 3 // 4, side)
    paths = [folder / str(number % 2) / f"{number:06d}.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(shape[::-1])
        noisy = np.asarray(colors).astype(int) + random.integers(-12, 13, (*shape, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def measure_rate(batches: Iterable[object], count: int) -> float:
    """Return the images per second of one epoch."""
    start = time.perf_counter()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start)


def measure_torchvision(folder: Path, settings: ImageSettings) -> dict[str, float]:
    """Return the rates of the first and of the second epoch of ImageFolder and DataLoader."""
    steps = [v2.Resize(settings.stored_side), v2.RandomCrop(settings.size), v2.RandomHorizontalFlip(), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)]
    data, workers = ImageFolder(folder, v2.Compose(steps)), settings.workers
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return {f"torchvision_{epoch}": measure_rate(loader, len(data)) for epoch in ("first", "later")}


def measure_lntl(paths: list[Path], settings: ImageSettings) -> dict[str, float]:
    """Return the rates of the first and of the second epoch with a cache that is empty at first."""
    loader = Loader(ImageSourceSplit(ImageSource(paths, settings)), BATCH, torch.device("cpu"))
    epochs = enumerate(("first", "later"))
    return {f"{settings.cache}_{name}": measure_rate(loader.batches(seed), len(paths)) for seed, name in epochs}


def measure_both(paths: list[Path], folder: Path, size: int, workers: int) -> dict[str, float]:
    """Return the rates of the DataLoader and of `lntl`, measured one after the other."""
    settings = ImageSettings(size=size, crop="shift", flip=True, workers=workers)
    rates = measure_torchvision(folder, settings)
    for cache in CACHES:
        with TemporaryDirectory() as cache_dir:
            rates |= measure_lntl(paths, settings.model_copy(update={"cache": cache, "cache_dir": cache_dir}))
    return rates


def main() -> None:
    """Measure both, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--side", type=int, default=320, help="width of the JPEG files, in pixels")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input images, in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, in which both are measured in turn; the results are medians"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("loading.json"))
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        paths = write_images(Path(folder), args.images, args.side)
        measure_both(paths[:BATCH], Path(folder), args.size, args.workers)  # warm both up
        rounds = [measure_both(paths, Path(folder), args.size, args.workers) for _ in range(args.rounds)]
    ratios = {
        f"{cache}_{epoch}": [rates[f"{cache}_{epoch}"] / rates[f"torchvision_{epoch}"] for rates in rounds]
        for cache in CACHES
        for epoch in ("first", "later")
    }
    result = {
        "images_per_second": {key: round(statistics.median(rates[key] for rates in rounds), 1) for key in rounds[0]},
        "ratio": {key: round(statistics.median(values), 2) for key, values in ratios.items()},
        "ratio_range": {key: [round(f(values), 2) for f in (min, max)] for key, values in ratios.items()},
        **{key: getattr(args, key) for key in ("images", "side", "size", "workers", "rounds")},
        "batch_size": BATCH,
    }
    write_result(result, args.out)


if __name__ == "__main__":
    main()
