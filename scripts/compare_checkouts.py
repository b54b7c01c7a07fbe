"""Prove a refactor: train the same small runs with two checkouts of lntl and compare every number that they write.

Usage: python scripts/compare_checkouts.py BEFORE AFTER [--out FOLDER] [--only NAME ...]

BEFORE and AFTER are checkouts; both run with this Python and its packages, on one thread. Each method is run on Colored
MNIST (erm, bias_head, then the method). Further runs train on vectors, on arrays of images with two biases, and on
image files with augmentation. The script compares

- all tensors of last.pth and best_model.pth (networks, their average, method, optimizers),
- all numbers of result.json, metrics.jsonl, evaluation/*.json, probe.json and recoloring.json,
- all arrays of evaluation/*.npz, embedding.npz and recoloring.npz.

Times, dates, paths and sentences are not compared. Keys that were renamed after lntl 0.1 are compared under their new
names. Numbers and arrays that only AFTER has are counted, not compared. The exit code is 1 if anything differs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# Settings: current name -> name in lntl 0.1. Results: name in lntl 0.1 -> current name.
RENAMED_SETTINGS = {
    "updates": "schedule",
    "h_positions": "places",
    "max_gradient_ratio": "max_ratio",
    "max_weight": "clip",
    "bias_dilation": "bias_reach",
}
RENAMED_RESULTS = {"bias_names": "bias_value_names", "each_bias": "per_bias"}
TIMES = re.compile(r"(^|[./])(seconds|training_seconds|wall_seconds|images_per_second)$|(^|[./])time/")

DIGITS = {"name": "colored_mnist", "path": "/nonexistent", "max_images": 300}
WARM_UP = [{"method": "erm", "epochs": 1}, {"method": "bias_head", "epochs": 1}]
PHASE_SETTINGS: dict[str, dict[str, Any]] = {  # further settings of the phase of a method
    "bias_contrastive": {"task": "bias_product"},
    "lntl": {"mu_ramp": "dann", "lam": 0.05},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lntl_alternating": {"method": "lntl", "updates": "alternating", "h_positions": "all"},
    "lntl_bounded": {"method": "lntl", "max_gradient_ratio": 0.5, "h_steps": 2, "h_smoothing": 0.1},
    "lntl_bias_product": {"method": "lntl", "task": "bias_product", "smoothing": 0.1},
    "conditional_alternating": {"method": "conditional_adversary", "updates": "alternating"},
    "reweight_limited": {"method": "reweight", "max_weight": 5.0},
}


def list_methods(checkout: Path) -> list[str]:
    """Return the names of the methods of a checkout."""
    command = "from lntl import plugins; print(*plugins.names('lntl.methods'))"
    return run_python(checkout, ["-c", command]).split()


def run_python(checkout: Path, arguments: list[str], folder: Path | None = None) -> str:
    """Run Python with the package of a checkout and return what it prints; raises RuntimeError if it fails."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(f"{checkout}: {' '.join(arguments)}\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    return process.stdout


def make_configurations(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the configuration of each run by its name, with the current keys."""
    phases = {name: {"method": name, "epochs": 2} | PHASE_SETTINGS.get(name, {}) for name in names}
    phases |= {name: {"epochs": 1} | variant for name, variant in VARIANTS.items()}
    configurations = {}
    for name, phase in phases.items():
        model: dict[str, Any] = {"name": "convnet"}
        if phase["method"] == "domain_independent":
            model["heads"] = "per_bias"
        configurations[name] = make_configuration(name, DIGITS, model, [*WARM_UP, phase])
    lntl_phases = [*WARM_UP, {"method": "lntl", "epochs": 1}]
    configurations["lenet_gray"] = make_configuration(
        "lenet_gray", DIGITS | {"grayscale": True}, {"name": "lenet"}, lntl_phases
    )
    configurations["dilated"] = make_configuration(
        "dilated", DIGITS | {"bias_dilation": 1}, {"name": "convnet"}, lntl_phases
    )
    vectors = {"name": "arrays", "path": "vectors.npz"}
    configurations["vectors"] = make_configuration("vectors", vectors, {"name": "mlp", "dropout": 0.2}, lntl_phases)
    two_biases = {"name": "arrays", "path": "pair.npz", "bias": ["shade", "size"]}
    configurations["two_biases"] = make_configuration("two_biases", two_biases, {"name": "mlp"}, lntl_phases)
    files = {"name": "table", "path": "files.csv", "bias": "shade", "size": 16, "crop": "shift", "flip": True}
    backbone = {"name": "torchvision/resnet18", "split": "layer2", "small_images": True}
    augmented = files | {"randaugment": 1}
    configurations["image_files"] = make_configuration("image_files", augmented, backbone, lntl_phases)
    return configurations


def make_configuration(name: str, data: dict[str, Any], model: dict[str, Any], phases: list[dict[str, Any]]) -> Any:
    """Return the configuration of a small run."""
    optimizer = {"name": "adam", "lr": 0.003}
    return {
        "project": {"experiment_name": name, "seed": 3},
        "data": data,
        "model": model,
        "training": {
            "device": "cpu",
            "batch_size": 32,
            "ema": 0.8,
            "clip_grad_norm": 5.0,
            "optimizer_fg": optimizer | {"schedule": "one_cycle"},
            "optimizer_h": optimizer,
            "phases": phases,
        },
        "logging": {"use_tensorboard": False},
        "evaluation": {"erm_epochs": int(name in PROBED_RUNS.split())},
    }


def use_old_names(tree: Any) -> Any:
    """Return a configuration with the keys of lntl 0.1."""
    if isinstance(tree, dict):
        return {RENAMED_SETTINGS.get(key, key): use_old_names(value) for key, value in tree.items()}
    return [use_old_names(value) for value in tree] if isinstance(tree, list) else tree


def write_data(folder: Path) -> None:
    """Write vectors.npz, pair.npz (images, two biases) and files.csv with its images."""
    random = np.random.default_rng(0)
    n = 180
    y, shade, size = np.arange(n) % 3, np.arange(n) // 3 % 2, random.integers(0, 3, n)
    shade = np.where(random.random(n) < 0.6, y % 2, shade)
    np.savez(folder / "vectors.npz", x=random.normal(5, 3, (n, 7)) + y[:, None], y=y, bias=shade)
    images = (
        random.integers(0, 200, (n, 10, 12, 3), dtype=np.uint8) + (40 * shade).astype(np.uint8)[:, None, None, None]
    )
    np.savez(folder / "pair.npz", x=images, y=y, shade=shade, size=size)
    (folder / "files").mkdir()
    lines = ["image,label,shade"]
    for k in range(n):
        pixels = np.full((20 + k % 3, 22, 3), 30 + 90 * shade[k], dtype=np.uint8)
        pixels[:, : 4 + 6 * y[k]] = random.integers(100, 255, 3)
        Image.fromarray(pixels).save(folder / f"files/{k:03}.png")
        lines.append(f"files/{k:03}.png,{('cat', 'dog', 'eel')[y[k]]},{('light', 'dark')[shade[k]]}")
    (folder / "files.csv").write_text("\n".join(lines))


PROBED_RUNS = "erm lntl two_biases image_files"  # only these runs are probed, because probes take most of the time
DRIVER = """
import sys
from pathlib import Path
import torch
from lntl import cli
torch.set_num_threads(1)
probed_names, *names = sys.argv[1:]
for name in names:
    run = f"results/{name}"
    commands = [["train", f"{name}.yaml"], ["eval", f"{run}/checkpoints/last.pth"]]
    if name in probed_names.split():
        commands.append(["probe", run])
    for command in commands:
        print("+", *command, flush=True)
        try:
            cli.main(command)
        except SystemExit as end:
            if end.code:
                raise
"""


def train(checkout: Path, folder: Path, configurations: dict[str, Any], has_old_names: bool) -> None:
    """Train and evaluate all runs with a checkout in `folder`, and probe some of them."""
    folder.mkdir(parents=True)
    write_data(folder)
    for name, content in configurations.items():
        (folder / f"{name}.yaml").write_text(json.dumps(use_old_names(content) if has_old_names else content))
    print(f"{checkout}: {len(configurations)} runs ...", flush=True)
    run_python(checkout, ["-c", DRIVER, PROBED_RUNS, *configurations], folder)


def iterate_tensors(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the path and the value of each tensor in a checkpoint."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from iterate_tensors(value, f"{path}.{key}")


def iterate_numbers(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path, with current names, and the value of each number, boolean and null of a JSON document."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from iterate_numbers(value, f"{path}.{RENAMED_RESULTS.get(str(key), key)}")
    elif not isinstance(tree, str) and not TIMES.search(path):
        yield path, tree


def read_values(file: Path) -> dict[str, Any]:
    """Return the tensors, numbers or arrays of a file that are compared, by path."""
    if file.suffix == ".pth":
        return dict(iterate_tensors(torch.load(file, map_location="cpu", weights_only=True)["trainer"]))
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if file.suffix == ".jsonl":
        return dict(iterate_numbers([json.loads(line) for line in file.read_text().splitlines()]))
    return dict(iterate_numbers(json.loads(file.read_text())))


def are_equal(a: Any, b: Any) -> bool:
    """Return whether two values are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and have_same_bits(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(type(a) is type(b) and a == b)


def have_same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors of one dtype and shape have the same bytes."""
    return a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


PATTERNS = (
    "checkpoints/last.pth",
    "checkpoints/best_model.pth",
    "result.json",
    "metrics.jsonl",
    "evaluation/*.json",
    "evaluation/*.npz",
    "probe.json",
    "recoloring.json",
    "embedding.npz",
    "recoloring.npz",
    "erm/checkpoints/last.pth",
)


def compare(before: Path, after: Path) -> tuple[dict[str, int], list[str]]:
    """Return the number of compared values, by kind, and a line for each difference."""
    count = {"files": 0, "tensors": 0, "numbers": 0, "arrays": 0, "only after": 0}
    differences = []
    for file in sorted({path for pattern in PATTERNS for path in before.glob(pattern)}):
        name = file.relative_to(before)
        count["files"] += 1
        if not (after / name).exists():
            differences.append(f"{after / name}: missing")
            continue
        old, new = read_values(file), read_values(after / name)
        kind = {".pth": "tensors", ".npz": "arrays"}.get(file.suffix, "numbers")
        count[kind] += len(old)
        count["only after"] += len(new.keys() - old.keys())
        differences += [
            f"{after / name}: {key}: {shorten(old[key])} became {shorten(new[key]) if key in new else 'nothing'}"
            for key in old
            if key not in new or not are_equal(old[key], new[key])
        ]
    return count, differences


def shorten(value: Any) -> str:
    """Return a value as one short line."""
    return f"{type(value).__name__} {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)


def main() -> None:
    """Train with both checkouts and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path("compared"), help="folder of the runs; existing runs are used again"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of runs")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    configurations = make_configurations(list_methods(checkouts["before"]))
    configurations = {
        name: content for name, content in configurations.items() if not arguments.only or name in arguments.only
    }
    folders = {side: arguments.out.resolve() / side for side in checkouts}
    for side, checkout in checkouts.items():
        if not folders[side].exists():
            has_old_names = "bias_reach" in (checkout / "src/lntl/data/colored_mnist.py").read_text()
            train(checkout, folders[side], configurations, has_old_names)
    total: dict[str, int] = {}
    differences = []
    for name in configurations:
        count, lines = compare(*(folders[side] / "results" / name for side in ("before", "after")))
        total = {kind: total.get(kind, 0) + number for kind, number in count.items()}
        differences += lines
        print(f"{name}: {', '.join(f'{number} {kind}' for kind, number in count.items())}: {len(lines)} differ")
    for line in differences:
        print(f"  {line}")
    counts = ", ".join(f"{number} {kind}" for kind, number in total.items())
    print(f"{len(configurations)} runs: {counts}: {len(differences)} differ")
    raise SystemExit(bool(differences))


if __name__ == "__main__":
    main()
