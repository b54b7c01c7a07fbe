"""Rewrite golden.json: `python tests/golden/make.py`. The commit must give the reason why the numbers change.

The run is small: 400 images of Colored MNIST, one epoch each of erm, bias_head and lntl, on one thread of a CPU.
"""

import json
from pathlib import Path
from typing import Any

import torch

from lntl import config, experiment
from lntl.evaluation.tally import compute

GOLDEN_FILE = Path(__file__).with_name("golden.json")
OPTIMIZER = {"name": "adam", "lr": 0.003}
RAW_CONFIG: dict[str, Any] = {
    "project": {"experiment_name": "golden", "seed": 1},
    "data": {
        "name": "colored_mnist",
        "path": "/nonexistent",
        "max_images": 400,
        "color_var": 0.03,
        "val_coloring": "biased",
    },
    "model": {"name": "convnet"},
    "training": {
        "device": "cpu",
        "batch_size": 32,
        "ema": 0.8,
        "adversarial_lambda": 0.2,
        "clip_grad_norm": 5.0,
        "optimizer_fg": OPTIMIZER | {"schedule": "one_cycle"},
        "optimizer_h": OPTIMIZER,
        "phases": [
            {"method": "erm", "epochs": 1},
            {"method": "bias_head", "epochs": 1},
            {"method": "lntl", "epochs": 1, "lam": 0.05, "mu_ramp": "dann"},
        ],
    },
    "evaluation": {
        "metrics": ["accuracy", "unbiased_accuracy", "worst_group_accuracy", "f1_score_macro", "bias_accuracy"]
    },
}


def train_and_measure() -> dict[str, dict[str, float]]:
    """Train; return the metrics of each epoch and those of the last and the averaged weights on val and test."""
    torch.set_num_threads(1)
    golden_experiment = experiment.build(config.validate(RAW_CONFIG, "golden"))
    metrics = {f"epoch {record.total_epoch}": record.metrics for record in golden_experiment.trainer}
    for split in ("val", "test"):
        for name, networks in (
            ("weights", golden_experiment.networks),
            ("average", golden_experiment.trainer.evaluated),
        ):
            values = compute(golden_experiment.predict(networks, split), golden_experiment.config.evaluation.metrics)
            metrics[f"{split}, {name}"] = {metric: value for metric, value in values.items() if value is not None}
    return metrics


if __name__ == "__main__":
    GOLDEN_FILE.write_text(json.dumps(train_and_measure(), indent=2) + "\n")
    print(f"wrote {GOLDEN_FILE}")
