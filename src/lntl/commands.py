"""What the command lines do, whichever of them is used."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rich.columns import Columns

from lntl import config as configuration
from lntl import experiment, probing
from lntl.cli import console, memory
from lntl.cli.console import echo, out
from lntl.config import Config
from lntl.config import ready as ready_configs
from lntl.data.colored_mnist import ColoredMNIST
from lntl.errors import UserError
from lntl.reporting import tables
from lntl.reporting.verdict import probe_sentences
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Probe, Recoloring, Result
from lntl.training.trainer import Step
from lntl.types import EpochRecord


def train(
    config_name: str,
    overrides: list[str],
    *,
    resume: str | None,
    overwrite: bool,
    epochs: int | None,
    device: str | None,
) -> None:
    """Train what a configuration describes, evaluate it on the test set, and show the result."""
    if device is not None:
        overrides = [*overrides, f"training.device={device}"]
    config = configuration.read(ready_configs.find(config_name), overrides, epochs)
    console.log_to_console()
    memory.keep_freed_memory()
    run, result = experiment.train(config, resume, overwrite, watch=_watch)
    _show(result, config, run.folder)


def make(config_name: str, split: Literal["test", "val"]) -> None:
    """Train what a configuration describes, from where it was stopped, and evaluate it on one split."""
    config = configuration.read(Path(config_name))
    console.log_to_console()
    memory.keep_freed_memory()
    experiment.train(config, "auto", split=split, watch=_watch)


def _watch(run: experiment.Run, events: Iterator[Step | EpochRecord]) -> None:
    console.show_progress(events, run.experiment.trainer, run.experiment.config.training.batch_size)


def _show(result: Result, config: Config, folder: RunFolder) -> None:
    color_var = config.data.color_var if isinstance(config.data, ColoredMNIST.Config) else None
    out.print(tables.result_table(result, color_var))
    echo(result.selection, style="dim")
    for path in sorted(p for p in folder.path.iterdir() if not p.name.startswith(".")):
        echo(f"  {path}{'/' if path.is_dir() else ''}")
    echo(f"lntl report {folder.path} makes a page that shows it all")


def evaluate(target: Path, device: str | None, trust: Sequence[str] = ()) -> None:
    """Evaluate a checkpoint, or the best one of a run folder, on the test set; show and keep what was measured."""
    console.log_to_console()
    path = RunFolder.resolve(target)
    evaluation = experiment.evaluate_checkpoint(path, device=device, trust=trust)
    measured, chosen = evaluation.measured, evaluation.config.evaluation.metrics
    title = f"{evaluation.config.project.experiment_name}: {path.name}, epoch {measured.epoch}, test set"
    out.print(tables.metric_table(title, {name: measured.metrics[name] for name in chosen}))
    by_class, by_bias = (("by class", measured.by_class), ("by bias", measured.by_bias))
    out.print(Columns([tables.accuracy_table(*by_class), tables.accuracy_table(*by_bias)]))
    for warning in measured.warnings:
        echo(f"Note: {warning}.", style="yellow")
    written = evaluation.write()
    for file in written:
        echo(f"  {file}")
    if not written:
        out.print("Not kept in a file: the checkpoint does not lie in RUN/checkpoints/.", style="dim")


def probe(target: Path, layers: list[str] | None, seeds: int, device: str | None, trust: Sequence[str]) -> None:
    """Look for the bias in a checkpoint, or in the best one of a run folder; show how much is left."""
    console.log_to_console()
    path = RunFolder.resolve(target)
    found = probing.probe_checkpoint(path, layers, seeds, device, trust)
    measured, recoloring = Probe.model_validate(found), found["recoloring"]
    for table in tables.probe_tables(measured):
        out.print(table)
    for sentence in probe_sentences(measured, recoloring and Recoloring.model_validate(recoloring)):
        echo(sentence)


def report(targets: list[str], folder: Path | None, device: str | None, trust: Sequence[str] = ()) -> None:
    """Make what the runs lack, write their page into `folder` (else RUN/report, or results/report), and name it."""
    from lntl.reporting.pages import write_report  # here, for matplotlib is slow to import

    runs = list(dict.fromkeys(_run_of(target) for target in targets))
    console.log_to_console()
    notes = {run.path: probing.complete(run, device, trust) for run in map(RunFolder, runs) if run.holds_a_run}
    if folder is None:
        folder = RunFolder(runs[0]).report if len(runs) == 1 else Path("results/report")
    page = write_report(runs, folder, notes)
    for path in (page, folder / "report.json", folder / "report.md"):
        echo(f"  {path}")


def _run_of(target: str) -> Path:
    """Return a run folder as it is, and that of the run which a configuration names."""
    if Path(target).is_dir():
        return Path(target)
    if not Path(target).exists() and target not in ready_configs.names():
        raise UserError(f"{target}: there is no such run folder, nor a configuration of that name; see `ls results`")
    return experiment.run_folder(configuration.read(ready_configs.find(target))).path


def best_checkpoint(config_name: str, overrides: list[str]) -> Path:
    """Return the best checkpoint of the run that a configuration names."""
    folder = experiment.run_folder(configuration.read(ready_configs.find(config_name), overrides))
    if not folder.best.exists():
        raise UserError(f"{folder.best}: there is no such checkpoint; train first: lntl train {config_name}")
    return folder.best
