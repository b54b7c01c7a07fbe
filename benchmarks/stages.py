"""Say where the time of a command goes: the seconds inside the functions that do its work.

Usage: python benchmarks/stages.py [--step] COMMAND ...

COMMAND is that of `lntl`, such as `probe results/colored_mnist_baseline`. Prints a table: processor seconds within each
function, number of calls, and share of the whole; a function inside another one counts in both. Set OMP_NUM_THREADS=1:
what runs at the same time is counted together. With --step and no command: the operations of a joint training step of
LNTL, by the profiler of torch.
"""

import functools
import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

BEGAN = time.process_time()  # of the process since its start: near 0

# What is timed: a module, and names in it. A function is replaced where it was imported, too.
STAGES = {
    "lntl.experiment.build": ["load_data", "build", "Experiment.predict"],
    "lntl.experiment.checkpoints": ["open_checkpoint", "load_networks"],
    "lntl.training.trainer": ["Trainer._update", "Trainer._minimise", "Trainer._prepare"],
    "lntl.experiment.run": ["Run._save", "Run._finish_epoch", "compute"],
    "lntl.trackers.tensorboard": ["TensorBoard.confusion"],
    "lntl.experiment.evaluate": ["conclude", "train_erm", "summarise"],
    "lntl.probing.features": ["layer_outputs", "features"],
    "lntl.probing.leakage": ["Subject.pixels", "count_head", "measure_leakage"],
    "lntl.probing.probes": ["linear", "mlp", "conv", "probe_permuted"],
    "lntl.probing.recoloring": ["recolor"],
    "lntl.evaluation.predict": ["embed"],
    "lntl.probing.checkpoint": ["write_samples", "probe_checkpoint", "write_saliency", "shift_images"],
    "lntl.reporting.drawings": ["drawings"],
    "lntl.reporting.pages": ["write_report"],
}


def main() -> None:
    """Run the command with timers, and print the table."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--step"]:
        step()
        return
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    from lntl import cli

    seconds: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)
    replaced: dict[Any, Any] = {}
    for module, names in STAGES.items():
        loaded = importlib.import_module(module)
        for name in names:
            owner: Any = loaded
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            if hasattr(owner, last) and getattr(owner, last) not in replaced.values():
                original = getattr(owner, last)
                replaced[original] = timed(name, original, seconds, calls)
                setattr(owner, last, replaced[original])
    for module_object in [m for n, m in sys.modules.items() if n.startswith("lntl.")]:
        for name, value in list(vars(module_object).items()):
            if callable(value) and value.__hash__ is not None and value in replaced:
                setattr(module_object, name, replaced[value])
            if name == "PROBES":
                value.update({key: replaced.get(probe, probe) for key, probe in value.items()})
    imported = time.process_time() - BEGAN
    try:
        cli.main(arguments)
    except SystemExit as stop:
        if stop.code:
            raise
    total = time.process_time() - BEGAN
    print(f"\n{'stage':<28}{'seconds':>9}{'calls':>7}{'share':>8}")
    for name, spent in [("imports", imported), *sorted(seconds.items(), key=lambda row: -row[1]), ("total", total)]:
        print(f"{name:<28}{spent:>9.2f}{calls.get(name, 1):>7}{spent / total:>8.1%}")


def timed(
    name: str, function: Callable[..., Any], seconds: dict[str, float], calls: dict[str, int]
) -> Callable[..., Any]:
    """Return the function wrapped so that each call adds to `seconds` and `calls`."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - began
            calls[name] += 1

    return run


def step() -> None:
    """Print the operations of 20 joint steps."""
    from step import joint_trainer
    from torch.profiler import ProfilerActivity, profile

    trainer, _ = joint_trainer()
    steps = trainer.epoch()
    for _ in range(5):
        next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(20):
            next(steps)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
