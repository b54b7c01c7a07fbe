"""Show where a command spends its time: the seconds inside the functions that do its work.

Usage: python benchmarks/stages.py [--step | --recipe] COMMAND ...

COMMAND is a command of `lntl`, such as `probe results/colored_mnist_baseline`. The script prints a table: processor
seconds within each function, number of calls, and share of the total. The time of a function that another one calls is
counted in both. Set OMP_NUM_THREADS=1, because the times of parallel threads are added up. With --step and without a
command, it prints the operations of a joint training step of LNTL, measured with the profiler of torch. With --recipe
and without a command, it prints the processor seconds of each part of `make train`, from ten steps of each phase and
one evaluation.
"""

import functools
import importlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
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
    if arguments[:1] == ["--recipe"]:
        recipe()
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
    from step import build_joint_trainer
    from torch.profiler import ProfilerActivity, profile

    trainer, _ = build_joint_trainer()
    steps = trainer.epoch()
    for _ in range(5):
        next(steps)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(20):
            next(steps)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def recipe() -> None:
    """Print the processor seconds of each part of the default recipe."""
    from lntl import config as configuration
    from lntl import experiment
    from lntl.config import erm_config
    from lntl.data import load

    whole = configuration.read("colored_mnist_default", ["training.device=cpu", "data.path=none"])
    data = load(whole.data.name, whole.data)
    sizes = {name: len(split) for name, split in data.splits.items()}
    rows = []
    erm = erm_config(whole, Path())
    phases = [*((f"{phase.method}, of the run", whole, phase) for phase in whole.training.phases)]
    phases += [("erm, for comparison", erm, phase) for phase in erm.training.phases]
    for name, config, phase in phases:
        training = config.training.model_copy(update={"phases": (phase,)})
        new_experiment = experiment.build(config.model_copy(update={"training": training}), data=data)
        steps = new_experiment.trainer.epoch()
        for _ in range(3):
            next(steps)
        began = time.process_time()
        for _ in range(10):
            total = next(steps).total
        seconds_per_step = (time.process_time() - began) / 10
        rows.append((name, phase.epochs, seconds_per_step * 1000, seconds_per_step * total * phase.epochs))
    began = time.process_time()
    new_experiment.predict(new_experiment.networks, "val")
    an_image = (time.process_time() - began) / sizes["val"]
    epochs = sum(phase.epochs for _, _, phase in phases)
    rows.append(("evaluation on val, each epoch", epochs, 0.0, an_image * sizes["val"] * epochs))
    rows.append(("evaluation on test, both runs", 2, 0.0, an_image * sizes["test"] * 2))
    total_seconds = sum(row[3] for row in rows)
    print(f"{'part':<32}{'epochs':>7}{'ms/step':>9}{'seconds':>9}{'share':>8}   {sizes}")
    for name, epochs, ms, seconds in rows:
        print(f"{name:<32}{epochs:>7}{ms:>9.1f}{seconds:>9.1f}{seconds / total_seconds:>8.1%}")
    print(f"{'total':<32}{'':>16}{total_seconds:>9.1f}")


if __name__ == "__main__":
    main()
