"""What the command lines do, whichever of them is used."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from rich.columns import Columns

from lntl import config as configuration
from lntl import experiment, probing
from lntl.cli import console, memory
from lntl.cli.console import echo, log, out
from lntl.config import Config
from lntl.config import ready as ready_configs
from lntl.data.colored_mnist import ColoredMNIST
from lntl.errors import DeadEndError, UserError
from lntl.experiment.run import run_of
from lntl.reporting import tables
from lntl.reporting.verdict import probe_sentences
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Evaluation, Probe, Recoloring, Result
from lntl.runs.lock import locked


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
    with stop_signals() as stopped, locked(_to_train(config, resume).path), _tiny_as_zero():
        run = _take_up(config, resume, overwrite)
        erm = _train_erm(config, run.folder, resume is not None, overwrite, stopped)
        _train(run, stopped)
        result = experiment.conclude(run, erm)
    _show(result, config, run.folder)


def make(config_name: str, split: Literal["test", "val"]) -> None:
    """Train what a configuration describes, from where it was stopped, and evaluate it on one split."""
    config = configuration.read(Path(config_name))
    console.log_to_console()
    with stop_signals() as stopped, locked(_folder_of(config).path), _tiny_as_zero():
        run = _take_up(config, "auto", overwrite=False)
        _train(run, stopped)
        experiment.conclude(run, None, split)


@contextmanager
def _tiny_as_zero() -> Iterator[None]:
    """Take numbers below 1e-38 for 0, in this thread and those that it starts; afterwards as before in this one.

    Weight decay brings the weights of dead units there, and a processor multiplies such numbers many times more slowly.
    """
    memory.keep_freed_memory()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _folder_of(config: Config) -> RunFolder:
    return RunFolder(Path(config.logging.output_dir) / config.project.experiment_name)


def _to_train(config: Config, resume: str | None) -> RunFolder:
    """Return the folder of the run to train: the configuration's, or that of the checkpoint to resume from."""
    if resume is None or resume == "auto":
        return _folder_of(config)
    return run_of(RunFolder.resolve(Path(resume), "last"))


def _take_up(config: Config, resume: str | None, overwrite: bool) -> experiment.Run:
    """Return the run to train: new, or taken up from a checkpoint."""
    folder = _folder_of(config)
    if resume is None:
        return experiment.start(config, overwrite)
    if resume == "auto" and not folder.last.exists():
        if others := sorted(folder.checkpoints.glob("*.pth")):
            raise UserError(f"{folder.last} is missing; resume from another one, e.g. --resume {others[-1]}")
        return experiment.start(config, overwrite=True)  # stopped before its first checkpoint: nothing is lost
    return experiment.resume(config, folder.last if resume == "auto" else RunFolder.resolve(Path(resume), "last"))


def _train(run: experiment.Run, stopped: list[int]) -> None:
    trainer = run.experiment.trainer
    console.log_to_file(run.folder.log)
    log.info("run %s on %s, data: %s", run.folder.path, trainer.fabric.device, run.experiment.data.source)
    events = run.train(lambda: bool(stopped))
    console.show_progress(events, trainer, run.experiment.config.training.batch_size)


def _train_erm(config: Config, folder: RunFolder, resume: bool, overwrite: bool, stopped: list[int]) -> Result | None:
    """Train the plain network to compare with, if asked for, in a folder inside the run's; return its result."""
    if config.evaluation.erm_epochs == 0:
        return None
    twin = configuration.erm_twin(config, folder.path)
    if resume and (result := _result_of(twin, RunFolder(folder.erm))) is not None:
        return result
    try:
        run = _take_up(twin, "auto" if resume else None, overwrite)
    except DeadEndError:
        run = experiment.start(twin, overwrite=True)  # of other settings, such as more epochs than now
    _train(run, stopped)
    return experiment.conclude(run, None)


def _result_of(config: Config, folder: RunFolder) -> Result | None:
    """Return the result of a run that is over, None where its configuration was another or a metric is missing."""
    result = folder.read_result()
    if result is None or not set(config.evaluation.metrics) <= result.last.test.keys():
        return None
    return result if folder.config.read_text(encoding="utf-8") == configuration.to_yaml(config) else None


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, so that training stops between two steps; a second one stops at once."""
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    facts, chosen = Evaluation.model_validate(evaluation.facts), evaluation.config.evaluation.metrics
    title = f"{evaluation.config.project.experiment_name}: {path.name}, epoch {facts.epoch}, test set"
    out.print(tables.metric_table(title, {name: facts.metrics[name] for name in chosen}))
    by_class, by_bias = (("by class", facts.by_class), ("by bias", facts.by_bias))
    out.print(Columns([tables.accuracy_table(*by_class), tables.accuracy_table(*by_bias)]))
    for warning in facts.warnings:
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


def report(targets: list[str], folder: Path | None, device: str | None) -> None:
    """Make what the runs lack, write their page into `folder` (else RUN/report, or results/report), and name it."""
    from lntl.reporting.pages import write_report  # here, for matplotlib is slow to import

    runs = list(dict.fromkeys(_run_of(target) for target in targets))
    console.log_to_console()
    notes = {run.path: probing.complete(run, device) for run in map(RunFolder, runs) if run.holds_a_run}
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
    return _folder(target, []).path


def _folder(config_name: str, overrides: list[str]) -> RunFolder:
    return _folder_of(configuration.read(ready_configs.find(config_name), overrides))


def best_checkpoint(config_name: str, overrides: list[str]) -> Path:
    """Return the best checkpoint of the run that a configuration names."""
    folder = _folder(config_name, overrides)
    if not folder.best.exists():
        raise UserError(f"{folder.best}: there is no such checkpoint; train first: lntl train {config_name}")
    return folder.best
