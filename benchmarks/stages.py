"""Show where a command spends its time: the seconds inside the functions that do its work.

Usage: python benchmarks/stages.py [--step] COMMAND ...

COMMAND is a command of `lntl`, such as `probe results/colored_mnist_baseline`. The script prints a table: processor
seconds within each function, number of calls, and share of the total. The time of a function that another one calls is
counted in both. Set OMP_NUM_THREADS=1, because the times of parallel threads are added up. With --step and without a
command, it prints the operations of a joint training step of LNTL, measured with the profiler of torch.
"""

import functools
import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

START = time.process_time()  # processor time at the start, near 0

# The measured functions by module. A function is also replaced in the modules that import it.
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
    "lntl.reporting.drawings": ["draw_run"],
    "lntl.reporting.pages": ["write_report"],
}


def main() -> None:
    """Run the command with timers, and print the table."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--step"]:
        print_step_operations()
        return
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    from lntl import cli

    seconds: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)
    wrappers: dict[Any, Any] = {}
    for module, names in STAGES.items():
        module_object = importlib.import_module(module)
        for name in names:
            owner: Any = module_object
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            if hasattr(owner, last) and getattr(owner, last) not in wrappers.values():
                original = getattr(owner, last)
                wrappers[original] = add_timer(name, original, seconds, calls)
                setattr(owner, last, wrappers[original])
    for module_object in [m for n, m in sys.modules.items() if n.startswith("lntl.")]:
        for name, value in list(vars(module_object).items()):
            if callable(value) and value.__hash__ is not None and value in wrappers:
                setattr(module_object, name, wrappers[value])
            if name == "PROBES":
                value.update({key: wrappers.get(probe, probe) for key, probe in value.items()})
    import_seconds = time.process_time() - START
    try:
        cli.main(arguments)
    except SystemExit as stop:
        if stop.code:
            raise
    total = time.process_time() - START
    print(f"\n{'stage':<28}{'seconds':>9}{'calls':>7}{'share':>8}")
    for name, spent in [
        ("imports", import_seconds),
        *sorted(seconds.items(), key=lambda row: -row[1]),
        ("total", total),
    ]:
        print(f"{name:<28}{spent:>9.2f}{calls.get(name, 1):>7}{spent / total:>8.1%}")


def add_timer(
    name: str, function: Callable[..., Any], seconds: dict[str, float], calls: dict[str, int]
) -> Callable[..., Any]:
    """Return the function wrapped so that each call adds to `seconds` and `calls`."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - start
            calls[name] += 1

    return run


def print_step_operations() -> None:
    """Print the operations of 20 joint steps."""
    from step import joint_trainer
    from torch.profiler import ProfilerActivity, profile

    trainer, _ = joint_trainer()
    steps = trainer.epoch()
    for _ in range(5):
        next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(20):
            next(steps)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
