"""A run in its folder: start or resume it, train it, evaluate it on val after each epoch, log and save."""

import logging
import math
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic, perf_counter
from types import FrameType

import torch
from torch import Tensor

from lntl import config as configuration
from lntl import ranks
from lntl.config import Config
from lntl.errors import DeadEndError, Interrupted, UserError
from lntl.evaluation.metrics import METRICS, NUM_HEADLINES, lower_is_better
from lntl.evaluation.tally import compute
from lntl.experiment.build import Experiment, build
from lntl.experiment.checkpoints import (
    check_fit,
    check_same_config,
    check_same_data,
    describe_data,
    flatten,
    load_start_weights,
)
from lntl.runs import checkpoint
from lntl.runs.checkpoint import BackgroundSaver, Checkpoint, NotFiniteError, find_non_finite
from lntl.runs.files import make_write_error, write_atomic, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Epoch, LearnedData
from lntl.trackers import TrackedRun, Trackers
from lntl.trackers import check as check_trackers
from lntl.training import health
from lntl.training.trainer import NonFiniteLossError, Step
from lntl.types import IGNORE, EpochRecord

log = logging.getLogger("lntl")
CHANCE_IMAGES = 2000  # enough to estimate the share of the most frequent bias value to a percent

Stop = Callable[[], bool]
Watch = Callable[["Run", Iterator[Step | EpochRecord]], None]  # iterates over all events of a training


@dataclass(frozen=True)
class Run:
    """A run in its folder, new or resumed.

    Args:
        experiment: Data, networks and trainer.
        folder: Folder in which the run is logged and saved.
        records: The metrics of each finished epoch.
    """

    experiment: Experiment
    folder: RunFolder
    records: list[Epoch]

    def train(self, stop: Stop = lambda: False) -> Iterator[Step | EpochRecord]:
        """Train to the end; save last.pth after each epoch, and every logging.checkpoint_minutes within an epoch.

        Args:
            stop: Called after every step; if it returns True, the state is saved and training ends.

        Yields:
            Each step, and the record of each epoch once it is evaluated and saved.

        Raises:
            Interrupted: If training was stopped.
            DeadEndError: If training diverged; the last good checkpoint stays, and the message names it.
            UserError: If a file cannot be written.
        """
        trainer = self.experiment.trainer
        is_resumed = trainer.total_steps > 0
        with ExitStack() as files:
            if ranks.is_first():
                files.enter_context(_log_to_file(self.folder.log))
            log.info("run %s on %s, data: %s", self.folder.path, trainer.fabric.device, self.experiment.data.source)
            self._warn_about_val()
            trackers = files.enter_context(self.open_trackers())
            if not is_resumed:
                trackers.send(lambda tracker: tracker.data(self.experiment.data))
            if is_resumed:
                self._save(self.folder.last)  # the run may have been resumed from an earlier checkpoint than last.pth
            saver = files.enter_context(BackgroundSaver())
            try:
                yield from self._events(trackers, stop, saver)
            except (NonFiniteLossError, NotFiniteError) as error:
                raise DeadEndError(f"{error}; the last good checkpoint is {self.folder.last}") from error

    def _warn_about_val(self) -> None:
        """Warn if the metric that chooses the epoch leaves out groups without an image in val."""
        metric = METRICS[self.experiment.config.evaluation.best_model_metric]
        if not metric.over_groups or not ranks.is_first():
            return
        num_groups, num_all_groups = self.experiment.count_groups("val")
        if num_groups < num_all_groups:
            log.warning(
                "val has images of %d of %d groups (class and bias value): %s, by which the epoch is chosen, leaves "
                "the others out",
                num_groups,
                num_all_groups,
                metric.name,
            )

    def open_trackers(self, training: bool = True) -> Trackers:
        """Open and return the configured trackers; training: whether training follows."""
        config, path = self.experiment.config, self.folder.path
        parent = RunFolder(path.parent)
        name = f"{parent.path.name}/{path.name}" if parent.erm == path and parent.holds_a_run else path.name
        settings = flatten(config.model_dump())
        run = TrackedRun(
            self.folder, config.project.name, name, settings, self.experiment.trainer.total_steps, training
        )
        return Trackers(config.logging.tracker_names() if ranks.is_first() else (), run)

    def _events(self, trackers: Trackers, stop: Stop, saver: BackgroundSaver) -> Iterator[Step | EpochRecord]:
        """Yield each step and each epoch's record; save after each epoch, at a stop and every checkpoint_minutes."""
        trainer, interval = self.experiment.trainer, 60 * self.experiment.config.logging.checkpoint_minutes
        last_save = monotonic()
        while not trainer.done:
            for step in trainer.epoch():
                if step.terms is not None:
                    terms = {f"train/{name}": value for name, value in step.terms.items()}
                    trackers.send(lambda tracker: tracker.scalars(terms, trainer.total_steps))  # noqa: B023 - called now
                yield step
                if ranks.any_rank(stop()):
                    saver.wait()
                    self._check_finite()
                    self._save(self.folder.last)
                    raise Interrupted(f"stopped at step {trainer.total_steps}; saved in {self.folder.last}")
                now = monotonic()
                if ranks.is_first() and saver.is_idle() and now - last_save >= interval:
                    saver.save(self.folder.last, self._checkpoint())
                    last_save = now
            assert trainer.record is not None
            saver.wait()  # otherwise it could replace the last.pth of this epoch by an earlier one
            self._finish_epoch(trainer.record, trackers)
            last_save = monotonic()
            yield trainer.record

    def _check_finite(self) -> None:
        """Raise NotFiniteError if the weights or the latest losses are infinite or NaN."""
        trainer = self.experiment.trainer
        if tensor_name := find_non_finite(trainer.state_dict()):
            raise NotFiniteError(
                f"{tensor_name} is not finite after step {trainer.total_steps}: training diverged; lower the "
                "learning rate or set training.clip_grad_norm"
            )

    def _finish_epoch(self, record: EpochRecord, trackers: Trackers) -> None:
        """Evaluate on val, log and save."""
        start_time = perf_counter()
        self._check_finite()
        predictions = self.experiment.predict(self.experiment.trainer.evaluated, "val", record.total_epoch)
        scores = compute(predictions, self.experiment.config.evaluation.metrics)
        val = {f"val/{name}": value for name, value in scores.items()}
        chance = {"train/h_chance": self._bias_chance[0]} if "train/h_accuracy" in record.metrics else {}
        train = record.metrics | chance
        position = {name: getattr(record, name) for name in ("phase", "method", "epoch", "total_epoch", "step")}
        times = {
            "time/images_per_second": record.images_per_second,
            "time/seconds": record.seconds + perf_counter() - start_time,
        }
        self.records.append(Epoch.model_validate(position | train | val | times))
        # Metrics are sent before the checkpoint is saved, because a resumed run does not send them again.
        defined_metrics = {name: value for name, value in (chance | val | times).items() if value is not None}
        class_names = self.experiment.data.spec.class_names
        trackers.send(lambda tracker: tracker.scalars(defined_metrics, record.step))
        trackers.send(lambda tracker: tracker.confusion(predictions, class_names, record.step))
        interval = self.experiment.config.logging.checkpoint_interval_epochs
        if self.best_record is self.records[-1]:
            self._save(self.folder.best)
        if record.total_epoch % interval == 0 or self.experiment.trainer.done:
            self._save(self.folder.checkpoint(record.total_epoch))
        self._save(self.folder.last)
        if ranks.is_first():
            self.folder.write_metrics(self.records)
        log.info(
            "epoch %d/%d, phase %d %s: %s | val %s",
            record.total_epoch,
            self.experiment.trainer.total_epochs,
            record.phase,
            record.method,
            _format({name.removeprefix("train/"): v for name, v in train.items() if "/lr_" not in name}),
            _format(dict(list(scores.items())[:NUM_HEADLINES])),
        )
        self._log_health()

    def _log_health(self) -> None:
        """Log problems of the adversary after an epoch, if the method has an adversary."""
        *earlier_records, record = self.records
        metrics = record.metrics
        if "train/h_accuracy" not in metrics:
            return
        if (mi := metrics.get("train/mi")) is not None:
            metrics = metrics | {"train/h_entropy": -mi}
        previous_metrics = (
            earlier_records[-1].metrics if earlier_records and earlier_records[-1].phase == record.phase else None
        )
        spec = self.experiment.data.spec
        sizes = spec.num_values_per_bias or (spec.num_bins,)
        max_entropy = sum(map(math.log, sizes)) / len(sizes)
        chance, class_chance = self._bias_chance
        for sentence in health.diagnose(metrics, chance, max_entropy, previous_metrics, class_chance):
            log.warning("%s", sentence)

    @cached_property
    def _bias_chance(self) -> tuple[float, float]:
        """Accuracy of predicting the most frequent bias value, overall and in each class.

        Each accuracy is the mean over the biases (for example the channels of a map) on the first CHANCE_IMAGES images.
        """
        split = self.experiment.data.splits["train"]
        index = torch.arange(min(len(split), CHANCE_IMAGES))
        labels = split.bias_labels(index)
        bias, y = (labels if labels.dim() > 1 else labels[:, None]).movedim(1, 0), split.y[index]
        shares = [_share_of_most_frequent([channel]) for channel in bias]
        class_shares = [_share_of_most_frequent([channel[y == label] for label in y.unique()]) for channel in bias]
        return sum(shares) / len(bias), sum(class_shares) / len(bias)

    @property
    def best_record(self) -> Epoch | None:
        """The record of the best epoch of the last phase, the earliest if several are equal; None before that phase.

        An epoch whose metric is undefined is never the best.
        """
        name = self.experiment.config.evaluation.best_model_metric
        last_phase = [r for r in self.records if r.phase == len(self.experiment.config.training.phases)]
        scored = [(value, r) for r in last_phase if (value := r.metrics.get(f"val/{name}")) is not None]
        choose = min if lower_is_better(name) else max
        return choose(scored, key=lambda pair: pair[0], default=(None, None))[1]

    @cached_property
    def _learned_data(self) -> LearnedData:
        return describe_data(self.experiment.data)

    def _checkpoint(self) -> Checkpoint:
        config, state = self.experiment.config.model_dump(), self.experiment.trainer.state_dict()
        return Checkpoint(config, state, self.records, self._learned_data)

    def _save(self, path: Path) -> None:
        """Save the state, which is the same on every rank."""
        if ranks.is_first():
            checkpoint.save(path, self._checkpoint())


class _LogFile(logging.FileHandler):
    """A log file that is closed with a warning if it cannot be written; the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Close the log file with a warning; other errors keep their traceback."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        log.removeHandler(self)
        with suppress(OSError):
            self.close()
        log.warning("%s; the log continues only in the terminal", make_write_error(Path(self.baseFilename), error))


@contextmanager
def _log_to_file(path: Path) -> Iterator[None]:
    """Also write the log to the file of the run, within the block."""
    try:
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise make_write_error(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # it is already closed if it could not be written
            handler.close()


def _share_of_most_frequent(parts: list[Tensor]) -> float:
    """Return the accuracy of predicting the most frequent label of each part; unknown labels are left out."""
    counts = [torch.bincount(part[part != IGNORE]) for part in parts]
    return sum(int(count.max()) for count in counts if len(count)) / max(sum(int(count.sum()) for count in counts), 1)


def _format(values: Mapping[str, float | None]) -> str:
    return " ".join(f"{name}={value:.4f}" for name, value in values.items() if value is not None)


def run_folder(config: Config) -> RunFolder:
    """Return the folder of the run that a configuration describes.

    Args:
        config: The configuration.

    Returns:
        The folder logging.output_dir/project.experiment_name; it need not exist.
    """
    return RunFolder(Path(config.logging.output_dir) / config.project.experiment_name)


def folder_of_checkpoint(path: Path) -> RunFolder:
    """Return the folder of the run to which a checkpoint belongs; raises UserError if it is not in a run folder."""
    folder = RunFolder.of_checkpoint(path)
    if folder is None:
        raise UserError(f"{path}: it is not in RUN/checkpoints/; move it there so that its run can be found")
    return folder


def start(config: Config, overwrite: bool = False, trust: Sequence[str] = ()) -> Run:
    """Return a new run in the folder that the configuration names.

    Args:
        config: The configuration.
        overwrite: Whether to replace an existing run.
        trust: Modules that `training.start_from` may name, besides those in the configuration.

    Returns:
        The run, before its first step.

    Raises:
        UserError: If a run exists that may not be overwritten, or the device or the data set is unavailable.
    """
    check_trackers(config.logging.tracker_names())
    experiment = build(config)
    if config.training.start_from is not None:
        load_start_weights(experiment, Path(config.training.start_from), trust)
    folder = run_folder(config)
    if not ranks.is_first():
        return Run(experiment, folder, [])
    folder.create(configuration.to_yaml(config), overwrite)
    folder.check_links()
    if skipped := experiment.data.skipped_rows:
        write_text(folder.skipped, "".join(f"{line}\n" for line in skipped))
        log.warning("%d wrong rows of the data are left out; they are listed in %s", len(skipped), folder.skipped)
    run = Run(experiment, folder, [])
    run._save(folder.last)
    return run


def resume(config: Config, path: Path, trust: Sequence[str] = ()) -> Run:
    """Return the run to which a checkpoint belongs, at the step of the checkpoint.

    Args:
        config: The configuration.
        path: The checkpoint, in RUN/checkpoints/.
        trust: Modules that it may name, besides those in the configuration.

    Returns:
        The run; `train` continues it.

    Raises:
        DeadEndError: If the configuration has changed a key that affects the finished epochs.
        UserError: If the checkpoint cannot be read or is not in a run folder, or its data have changed.
    """
    saved = ranks.compute_on_first(lambda: checkpoint.load(path))
    folder = folder_of_checkpoint(path)
    check_same_config(config, saved, path, trust)
    check_trackers(config.logging.tracker_names())
    experiment = build(config, trained=True)
    check_same_data(experiment.data, saved.data, path, resumed=True)
    with check_fit(path):
        experiment.trainer.load_state_dict(saved.trainer)
    run = Run(experiment, folder, saved.records)
    if not ranks.is_first():
        return run
    folder.check_links()
    if not experiment.trainer.done:
        folder.result.unlink(missing_ok=True)  # the old result belongs to a shorter run
    folder.resume(configuration.to_yaml(config))
    folder.write_metrics(saved.records)
    _remove_later_checkpoints(run)
    old_count, new_count = (_count_processes(raw) for raw in (saved.config, config.model_dump()))
    if old_count != new_count:
        log.warning(
            "trained by %s before and by %d from here on: the last bits differ from those of a run "
            "whose number of processes does not change",
            f"{old_count} process{'' if old_count == 1 else 'es'}",
            new_count,
        )
    return run


def _count_processes(raw: object) -> int:
    """Return the number of processes that a raw configuration asks for."""
    training = raw.get("training") if isinstance(raw, dict) else None
    keys = training if isinstance(training, dict) else {}
    return int(keys.get("devices", 1)) * int(keys.get("num_nodes", 1))


def _remove_later_checkpoints(run: Run) -> None:
    """Remove the checkpoints of epochs after the resumed one, and restore the best checkpoint of the epochs before."""
    num_epochs, best_record = len(run.records), run.best_record
    for epoch, path in run.folder.epoch_checkpoints().items():
        if epoch > num_epochs:
            path.unlink()
    if run.folder.best.exists() and (best_record is None or len(checkpoint.load(run.folder.best).records) > num_epochs):
        run.folder.best.unlink()
        if best_record is not None and (path := run.folder.checkpoint(best_record.total_epoch)).exists():
            write_atomic(run.folder.best, lambda file: file.write(path.read_bytes()))


def start_or_resume(config: Config, resume_from: str | None, overwrite: bool = False, trust: Sequence[str] = ()) -> Run:
    """Return the run to train: a new or a resumed one.

    Args:
        config: The configuration.
        resume_from: None for a new run; "auto" to resume the run of the configuration's name, if it exists; or a
            checkpoint; or a run folder, to resume from its last checkpoint.
        overwrite: Whether to replace an existing run that is not resumed.
        trust: Modules that the checkpoint may name, besides those in the configuration.

    Returns:
        The run; `train` continues it.

    Raises:
        UserError: As for `start` and `resume`; or if the checkpoints of a run with results are missing.
    """
    if resume_from is None:
        return start(config, overwrite, trust)
    path = ranks.compute_on_first(lambda: _checkpoint_to_resume(run_folder(config), resume_from, overwrite))
    if path is not None:
        return resume(config, path, trust)
    return start(config, True, trust)  # the run was stopped before its first checkpoint, so nothing is lost


def _checkpoint_to_resume(folder: RunFolder, resume_from: str, overwrite: bool) -> Path | None:
    """Return the checkpoint that `resume_from` names; None for a run without a checkpoint."""
    if resume_from != "auto":
        return RunFolder.resolve(Path(resume_from), "last")
    if folder.last.exists():
        return folder.last
    if others := sorted(folder.checkpoints.glob("*.pth")):
        raise UserError(f"{folder.last} is missing; resume from another one, e.g. --resume {others[-1]}")
    if not overwrite and folder.holds_a_run and (results := folder.results()):
        raise UserError(
            f"{folder.last} is missing, so the run cannot be resumed, and {results[0]} would be lost; replace the run "
            "with --overwrite, or set another project.experiment_name"
        )
    return None


def exhaust(run: Run, events: Iterator[Step | EpochRecord]) -> None:
    """Iterate over all events without showing them."""
    deque(events, maxlen=0)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch Ctrl-C, SIGTERM and SIGHUP, so that a run can save its state; a second signal ends the process at once.

    A SIGHUP that is ignored, as under nohup, stays ignored.

    Yields:
        A function that returns whether a signal was received.
    """
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)

    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
    old_handlers = {
        number: signal.signal(number, receive)
        for number in numbers
        if number is not None and (number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN)
    }
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat numbers below 1e-38 as 0 within the block, in this thread and in threads that it starts.

    Weight decay makes the weights of dead units so small, and processors are many times slower with such numbers.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
