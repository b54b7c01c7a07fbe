"""Measure a training step of `lntl` (updates: joint) and of a plain implementation of the authors' procedure.

Usage: python benchmarks/step.py [--seconds 20] [--threads 2] [--out benchmarks/step.json]

Both train on the same images of Colored MNIST in batches of 128. They take turns in one process, so that other load on
the machine slows both. Prints and writes: images per second of both, their ratio, the FLOPs of a step, and the share of
the peak of a float32 matrix product, measured in the same run.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from output import write_result
from reference import Reference, count_step_flops, measure_matmul_gflops

from lntl import config, experiment
from lntl.training.trainer import Trainer

BATCH = 128
ROUNDS = 5  # measurements of each implementation; the result is the median


def build_joint_trainer() -> tuple[Trainer, experiment.Experiment]:
    """Build the trainer of the default configuration, in its unlearning phase, with the authors' optimiser."""
    phases = "training.phases=[{method: lntl, epochs: 1000, updates: joint}]"
    overrides = [
        "data.path=none",
        "data.val_split_ratio=0.1",
        "model.bias_head=map",
        f"training.batch_size={BATCH}",
        "training.ema=null",
        phases,
    ]
    overrides += ["training.optimizer_fg={name: sgd, weight_decay: 0.0005}", "training.optimizer_h={name: sgd}"]
    joint_experiment = experiment.build(config.read("colored_mnist_default", overrides))
    return joint_experiment.trainer, joint_experiment


def measure_lntl_rate(trainer: Trainer, seconds: float) -> float:
    """Return the images per second of our training steps, loading included."""
    start, images = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in trainer.epoch():
            images += BATCH
            if time.perf_counter() - start >= seconds:
                break
    return images / elapsed


def main() -> None:
    """Measure both, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds of measurement for each implementation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("step.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trainer, joint_experiment = build_joint_trainer()
    train = joint_experiment.data.splits["train"]
    index = torch.arange(10_000)
    images = train.pixels(index).permute(0, 2, 3, 1).contiguous().numpy()
    reference = Reference(images, train.y[index].numpy(), batch_size=BATCH)
    turn = args.seconds / ROUNDS
    reference.measure_speed(turn / 2)  # warm both up
    measure_lntl_rate(trainer, turn / 2)
    rates = [(reference.measure_speed(turn), measure_lntl_rate(trainer, turn)) for _ in range(ROUNDS)]
    reference_rate, our_rate = (statistics.median(values) for values in zip(*rates, strict=True))
    flops = sum(count_step_flops(BATCH).values()) / BATCH  # per image
    peak = measure_matmul_gflops()
    result = {
        "reference_images_per_second": round(reference_rate, 1),
        "lntl_images_per_second": round(our_rate, 1),
        "ratio": round(statistics.median(b / a for a, b in rates), 2),
        "ratio_range": [round(f(b / a for a, b in rates), 2) for f in (min, max)],
        "megaflops_an_image": round(flops / 1e6, 1),
        "matmul_peak_gflops": round(peak, 1),
        "share_of_peak": round(our_rate * flops / 1e9 / peak, 3),
        "batch_size": BATCH,
        "rounds": ROUNDS,
    }
    write_result(result, args.out)


if __name__ == "__main__":
    main()
