"""Measure training on photographs: with `lntl`, and with a plain PyTorch loop over ImageFolder.

Usage: python benchmarks/real_loading.py [--images 1280] [--workers 1] [--rounds 3] [--photographs 25000]
       [--config benchmarks/real/base.yaml] [KEY=VALUE ...]

Uses random training images (seed 0) of the table that the configuration names. Each round runs, one after the other:
two epochs of the plain loop (the same network, start weights, optimiser, batches, steps and workers), two epochs of
`erm` with an empty disk cache, of which the second reads the cache, and one epoch of `lntl`. Another process then
measures the peak memory with --photographs images: it reads all of them once into an empty disk cache, trains ten
steps, and evaluates val. Writes images per second, the ratios and the peak memory to benchmarks/real_loading.json
(--out).
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from output import write_result
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lntl import config as configuration
from lntl import data as datasets
from lntl.config import Config
from lntl.experiment.build import build
from lntl.types import Networks


def write_subset(config: Config, count: int, folder: Path) -> Path:
    """Write a table of `count` training images with their classes and biases, and links to them in folders by class."""
    data = datasets.load(config.data.name, config.data)
    train, spec = data.splits["train"], data.spec
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
    table = [("image", "label", "bias", "split")]
    for number, row in enumerate(rows.tolist()):
        y, bias = int(train.y[row]), train.bias_labels(torch.tensor([row]))[0].item()
        source = Path(data.row_name(int(train.row[row]))).absolute()
        link = folder / "images" / spec.class_names[y].replace(" ", "_") / f"{number:05d}{source.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
        split = ("val", "test")[number % 2] if number < count // 20 else "train"
        table.append((str(link), spec.class_names[y], str(bias), split))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return folder / "table.csv"


def measure_loop(config: Config, networks: Networks, folder: Path) -> dict[str, float]:
    """Return images per second in the first and the second epoch of a plain PyTorch loop."""
    data: Any = config.data  # the settings depend on the plug-in
    steps = [v2.Resize(data.size), v2.CenterCrop(data.size), v2.RandomHorizontalFlip(), v2.ToImage()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.normalise.mean, data.normalise.std)]
    images = ImageFolder(folder / "images", v2.Compose(steps))
    loader = DataLoader(
        images, config.training.batch_size, shuffle=True, num_workers=data.workers, persistent_workers=data.workers > 0
    )
    model = torch.nn.Sequential(networks.f, networks.g).train()
    adam = torch.optim.Adam(model.parameters(), config.training.optimizer_fg.lr)
    rates = {}
    for epoch in ("first", "later"):
        start = time.perf_counter()
        for x, y in loader:
            adam.zero_grad()
            F.cross_entropy(model(x), y).backward()
            adam.step()
        rates[f"plain_{epoch}"] = len(images) / (time.perf_counter() - start)
    return rates


def measure_lntl(config: Config, name: str) -> dict[str, float]:
    """Return images per second in each epoch of a training with lntl, by `name` and epoch."""
    experiment = build(config)
    trainer, rates = experiment.trainer, {}
    for epoch in ("first", "later")[: config.training.phases[0].epochs]:
        start, steps = time.perf_counter(), 0
        for _ in trainer.epoch():
            steps += 1
        rates[f"{name}_{epoch}"] = steps * config.training.batch_size / (time.perf_counter() - start)
    return rates


def measure_round(source: Path, overrides: list[str], folder: Path, table: Path) -> dict[str, float]:
    """Return the rates of the loop and of lntl, measured one after the other."""
    with TemporaryDirectory() as cache:
        settings = [f"data.path={table}", "data.root=/", "data.bias=bias", "data.split=split", "data.check=none"]
        settings += ["data.cache=disk", f"data.cache_dir={cache}", "training.device=cpu", "data.label=label"]
        erm = configuration.read(source, [*overrides, *settings, "training.phases=[{method: erm, epochs: 2}]"])
        lntl = configuration.read(
            source, [*overrides, *settings, "training.phases=[{method: lntl, epochs: 1, lam: 0.01}]"]
        )
        return measure_loop(erm, build(erm).networks, folder) | measure_lntl(erm, "erm") | measure_lntl(lntl, "lntl")


def measure_memory(config: Path, overrides: list[str], count: int) -> None:
    """Read `count` photographs in data.root, train, and print the peak memory of this process in GB."""
    data: Any = configuration.read(config, overrides).data
    root = Path(data.root)
    photographs = sorted(path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() == ".jpg")
    rows = [(str(photographs[k % len(photographs)]), k % 2, k // 2 % 2, "train") for k in range(count)]
    rows = [(*row[:3], ("val", "test")[k % 2] if k < min(400, count // 4) else row[3]) for k, row in enumerate(rows)]
    with TemporaryDirectory() as folder:
        with (Path(folder) / "table.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "label", "bias", "split"), *rows])
        settings = [f"data.path={folder}/table.csv", f"data.cache_dir={folder}", "data.cache=disk", "data.check=header"]
        settings += ["data.bias=bias", "data.split=split", "data.label=label", "training.device=cpu"]
        experiment = build(
            configuration.read(config, [*overrides, *settings, "training.phases=[{method: erm, epochs: 1}]"])
        )
        for _ in experiment.loader("train").batches(0):
            pass
        for _, _ in zip(range(10), experiment.trainer.epoch(), strict=False):
            pass
        experiment.predict(experiment.networks, "val")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def compute_ratios(rounds: list[dict[str, float]]) -> Mapping[str, list[float]]:
    """Return the median, the lowest and the highest value over the rounds of each ratio."""
    pairs = {
        "erm_first / plain_first": ("erm_first", "plain_first"),
        "erm_later / plain_later": ("erm_later", "plain_later"),
        "seconds of lntl / of erm": ("erm_later", "lntl_first"),
    }
    values = {key: [r[a] / r[b] for r in rounds] for key, (a, b) in pairs.items()}
    return {key: [round(f(v), 2) for f in (statistics.median, min, max)] for key, v in values.items()}


def main() -> None:
    """Measure all rounds, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1280)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to measure; the results are medians")
    parser.add_argument("--photographs", type=int, default=25_000, help="number of images for the memory measurement")
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("real") / "base.yaml")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("real_loading.json"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = [*args.overrides, f"data.workers={args.workers}"]
    if args.memory_only:
        measure_memory(args.config, overrides, args.photographs)
        return
    with TemporaryDirectory() as folder:
        table = write_subset(configuration.read(args.config, overrides), args.images, Path(folder))
        rounds = [measure_round(args.config, overrides, Path(folder), table) for _ in range(args.rounds)]
    memory = [sys.executable, __file__, "--memory-only", "--photographs", str(args.photographs)]
    memory += ["--config", str(args.config), "--workers", str(args.workers), *args.overrides]
    peak = subprocess.run(memory, check=True, capture_output=True, text=True).stdout
    result = {
        "load": [round(load, 1) for load in os.getloadavg()],  # load of the machine over 1, 5 and 15 minutes
        "images_per_second": {key: round(statistics.median(rates[key] for rates in rounds), 1) for key in rounds[0]},
        "ratio": compute_ratios(rounds),
        "peak_memory_gb": round(float(peak.split()[-1]), 2),
        **{key: getattr(args, key) for key in ("images", "workers", "rounds", "photographs")},
    }
    write_result(result, args.out)


if __name__ == "__main__":
    main()
