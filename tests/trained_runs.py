"""Train small runs on image files, arrays, vectors and digits, for tests of prediction and export."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_runs import get_exit_code

from lntl import cli

N = 60
DATA: dict[str, dict[str, Any]] = {
    "table": {"name": "table", "path": "pets.csv", "bias": "sky", "size": 16, "crop": "shift", "workers": 2},
    "images": {"name": "arrays", "path": "images.npz"},
    "floats": {"name": "arrays", "path": "floats.npz"},
    "vectors": {"name": "arrays", "path": "vectors.npz"},
    "digits": {"name": "colored_mnist", "path": "/nonexistent", "max_images": 100, "grayscale": True},
}
MODEL: dict[str, dict[str, Any]] = {
    "table": {"name": "torchvision/shufflenet_v2_x0_5", "split": "stage2"},
    "images": {"name": "mlp"},
    "floats": {"name": "tiny_networks.TinyNetworks"},
    "vectors": {"name": "mlp", "heads": "per_bias"},
    "digits": {"name": "convnet"},
}


def write_data(folder: Path) -> None:
    """Write pets/*.png of several sizes with pets.csv, images.npz (n, 9, 12, 1), floats.npz and vectors.npz."""
    rng, y = np.random.default_rng(0), np.arange(N) % 3
    (folder / "pets/more").mkdir(parents=True)
    lines = ["image,label,sky"]
    for k in range(N):
        name = f"pets/{'more/' if k % 2 else ''}{k:02}.png"
        Image.fromarray(rng.integers(0, 256, (20 + k % 5, 24, 3), dtype=np.uint8)).save(folder / name)
        lines.append(f"{name},{('cat', 'dog', 'eel')[y[k]]},{('day', 'night')[k // 3 % 2]}")
    (folder / "pets.csv").write_text("\n".join(lines))
    labels = {"y": y, "bias": np.arange(N) // 3 % 2, "y_names": np.array(["cat", "dog", "eel"])}
    np.savez(folder / "images.npz", x=rng.integers(0, 256, (N, 9, 12, 1), dtype=np.uint8), **labels)
    np.savez(folder / "floats.npz", x=rng.random((N, 8, 8, 3)), **labels)
    np.savez(folder / "vectors.npz", x=rng.normal(5, 3, (N, 7)), **labels)


def train(folder: Path, kind: str) -> Path:
    """Write the data sets to `folder` and train a run on DATA[kind]; return its run folder."""
    write_data(folder)
    raw = {
        "project": {"experiment_name": kind},
        "data": DATA[kind] | ({"path": str(folder / DATA[kind]["path"])} if kind != "digits" else {}),
        "model": MODEL[kind],
        "training": {"device": "cpu", "batch_size": 16, "ema": 0.9, "phases": [{"method": "erm", "epochs": 1}]},
        "logging": {"output_dir": str(folder / "results"), "use_tensorboard": False},
    }
    (folder / f"{kind}.yaml").write_text(json.dumps(raw))
    assert get_exit_code(lambda: cli.main(["train", str(folder / f"{kind}.yaml")])) == 0
    return folder / "results" / kind


def copy_without_data(run: Path, folder: Path) -> Path:
    """Return a copy of a run in a folder without its data, so that the paths in its configuration do not exist."""
    shutil.copytree(run, folder / "copy")
    return folder / "copy"
