"""Train all methods for a few steps in one process or as one rank of several, for tests/training/test_ranks.py.

`python ranks_training.py FOLDER RANK WORLD_SIZE` finds the other ranks by a file in FOLDER and writes the results of
its trainings to FOLDER/rankRANK.pth.
"""

import sys
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from lntl import config as configuration
from lntl import plugins, ranks
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.loader import Loader
from lntl.methods import load_method
from lntl.models import append_eraser, load_model
from lntl.training.trainer import Trainer, TrainingPhase
from lntl.types import IGNORE, Batch, Split

SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
PHASES: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in plugins.names("lntl.methods")},
    "lntl, three steps of h": {"method": "lntl", "h_steps": 3, "h_smoothing": 0.1},
    "lntl, alternating": {"method": "lntl", "updates": "alternating", "lam": 0.3, "mu": 0.5},
    "lntl, all positions": {"method": "lntl", "h_positions": "all", "lam": 0.3},
    "lntl, limited ratio": {"method": "lntl", "max_gradient_ratio": 0.05, "mu": 1.0},
    "lntl, clipped": {"method": "lntl", "clip_grad_norm": 0.3, "ema": 0.9},
    "blind_eye, two steps of h": {"method": "blind_eye", "h_steps": 2},
    "hsic, not normalised": {"method": "hsic", "estimator": "hsic", "alpha": 10.0},
    "group_dro, natural": {"method": "group_dro", "sampling": "natural", "eta": 0.5},
}
LNTL_PHASE = {"method": "lntl", "h_steps": 2, "clip_grad_norm": 0.3}
ADAM: dict[str, Any] = {"optimizer_fg": {"name": "adam", "lr": 1e-3}, "optimizer_h": {"name": "adam", "lr": 1e-3}}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # a phase and keyword arguments of make_trainer
    "BatchNorm": ({"method": "erm"}, {"batch_norm": True}),
    "accumulated": (LNTL_PHASE, {"accumulate": 2}),
    "bf16": (LNTL_PHASE, {"precision": "bf16-mixed"}),
    "bf16, accumulated": (LNTL_PHASE, {"precision": "bf16-mixed", "accumulate": 2}),
    "bf16, gathered": ({"method": "hsic", "clip_grad_norm": 0.3}, {"precision": "bf16-mixed"}),
    "float32 with Adam": (LNTL_PHASE | ADAM, {"precision": "32-true"}),
}


class PartlyLabelledSplit(Split):
    """A split with inputs of type `dtype`, in which the bias of every fifth image is unknown."""

    def __init__(self, split: Split, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.split, is_unknown = split, torch.arange(len(split)) % 5 == 0
        self.y, self.row = split.y, split.row
        self.group = torch.where(is_unknown, IGNORE, split.group)

    def batch(self, index: Tensor) -> Batch:
        batch = self.split.batch(index)
        is_unknown = index % 5 == 0
        bias = torch.where(is_unknown.view(-1, *[1] * (batch.bias.dim() - 1)), IGNORE, batch.bias)
        features = batch.bias_features * ~is_unknown[:, None]
        return replace(
            batch, x=batch.x.to(self.dtype), bias=bias, group=self.group[index], bias_features=features.to(self.dtype)
        )

    def to(self, device: torch.device) -> "PartlyLabelledSplit":
        return self


class MapHead(nn.Module):
    """A linear h: z (N, C) -> logits (N, bins, 3, 14, 14), or the logits at the positions `where`, (M, bins, 3)."""

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(channels, bins * 3 * 14 * 14), (-1, bins, 3, 14, 14)

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        logits = self.linear(z).view(self.shape)
        return logits if where is None else logits.permute(0, 3, 4, 1, 2)[where]


@cache
def make_digits() -> ColoredMNIST:
    return ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100))


def make_trainer(
    phase: dict[str, Any],
    *,
    epochs: int = 3,
    batch_size: int = 13,
    accumulate: int = 1,
    batch_norm: bool = False,
    precision: Literal["64-true", "32-true", "bf16-mixed"] = "64-true",
) -> Trainer:
    """Return a trainer on 90 images: an epoch has six steps of 13 images and one of 12."""
    raw = {
        "project": {"experiment_name": "ranks"},
        "data": {"name": "colored_mnist", "path": "/nonexistent", "max_images": 100},
        "model": {"name": "lenet", "feature_dim": 16, "hidden_dim": 16}
        | dict(load_method(phase["method"]).required_model_settings),
        "training": {
            "device": "cpu", "optimizer_fg": SGD, "optimizer_h": SGD, "phases": [{"epochs": epochs} | phase],
        },
    }  # fmt: skip
    config = configuration.validate(raw, "test")
    data = make_digits()
    torch.manual_seed(0)
    networks = load_model("lenet")(data.spec, config.model)
    norm = nn.BatchNorm1d(16) if batch_norm else nn.Identity()
    networks.f = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 7 * 7, 16), norm, nn.Tanh())
    networks.h = MapHead(16, data.spec.num_bins)
    if config.model.eraser == "leace":
        append_eraser(networks, data.spec)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    networks.to(dtype)
    phases = [
        TrainingPhase(p, partial(load_method(p.method), config=p, spec=data.spec)) for p in config.training.phases
    ]
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    parts = ranks.world_size() * accumulate
    loader = Loader(PartlyLabelledSplit(data.splits["train"], dtype), batch_size, fabric.device, parts)
    return Trainer(fabric, networks, loader, phases, seed=0, log_interval=3, held_out=loader, accumulate=accumulate)


def train(phase: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Train, in float64 by default; return the weights, the state of the method and the metrics of the epochs."""
    make_digits()
    if settings.get("precision", "64-true") == "64-true":
        torch.set_default_dtype(torch.float64)  # Fabric converts the outputs of networks to this type
    try:
        trainer = make_trainer(phase, **settings)
        metrics = [record.metrics for record in trainer]
    finally:
        torch.set_default_dtype(torch.float32)
    method = {key: value.clone() for key, value in trainer.method.state_dict().items()}
    return {"networks": trainer.evaluated.state_dict(), "method": method, "metrics": metrics}


def main(folder: Path, rank: int, world_size: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "rendezvous"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    ranks.join(rank, world_size)
    results = {name: train(phase) for name, phase in PHASES.items()}
    for name, (phase, settings) in VARIANTS.items():
        results[name] = train(phase, **settings)
    torch.save(results, folder / f"rank{rank}.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
