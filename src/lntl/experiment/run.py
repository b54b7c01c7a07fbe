"""A run in its folder: train, evaluate on val, log and save; begin it or take it up again."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from lntl import config as configuration
from lntl.config import Config
from lntl.errors import DeadEndError, Interrupted, UserError
from lntl.evaluation.metrics import HEADLINES, lower_is_better
from lntl.evaluation.tally import compute
from lntl.experiment import kept
from lntl.experiment.board import show_confusion, show_data
from lntl.experiment.build import Experiment, build, fitting
from lntl.experiment.resumable import check_same
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import write_atomic, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Epoch
from lntl.runs.tensorboard import TensorBoard
from lntl.training import health
from lntl.training.trainer import NonFiniteLossError, Step
from lntl.types import IGNORE, EpochRecord

log = logging.getLogger("lntl")
CHANCE_IMAGES = 2000  # enough to tell the share of the most frequent bias value to a percent


@dataclass(frozen=True)
class Run:
    """A run in its folder, new or taken up again."""

    experiment: Experiment
    folder: RunFolder
    records: list[Epoch]  # the metrics of each finished epoch

    def train(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Step | EpochRecord]:
        """Train to the end; yield each step and each epoch's record.

        After every step `stop()` is asked; where it says yes the state is saved and Interrupted raised.
        """
        trainer, settings = self.experiment.trainer, self.experiment.config.logging
        begun = trainer.total_steps > 0
        board = None
        if settings.use_tensorboard:
            board = TensorBoard(self.folder.tensorboard, purge_step=trainer.total_steps + 1 if begun else 0)
        if board is not None and not begun:
            show_data(board, self.experiment.data)
        if begun:
            self._save(self.folder.last)  # it may have been taken up from an earlier checkpoint
        try:
            while not trainer.done:
                for step in trainer.epoch():
                    if step.terms is not None and board is not None:
                        board.scalars({f"train/{k}": v for k, v in step.terms.items()}, trainer.total_steps)
                    yield step
                    if stop():
                        self._save(self.folder.last)
                        raise Interrupted(f"stopped at step {trainer.total_steps}; saved in {self.folder.last}")
                assert trainer.record is not None
                self._finish_epoch(trainer.record, board)
                yield trainer.record
        except NonFiniteLossError as error:
            raise DeadEndError(f"{error}; the last good checkpoint is {self.folder.last}") from error
        finally:
            if board is not None:
                board.close()

    @cached_property
    def _bias_chance(self) -> tuple[float, float]:
        """What naming the most frequent bias value scores on (the first) training images: of all, of the class.

        Mean over the biases, such as the channels of a map.
        """
        split = self.experiment.data.splits["train"]
        index = torch.arange(min(len(split), CHANCE_IMAGES))
        labels = split.bias_labels(index)
        bias, y = (labels if labels.dim() > 1 else labels[:, None]).movedim(1, 0), split.y[index]
        of_all = [_share_of_most_frequent([channel]) for channel in bias]
        of_class = [_share_of_most_frequent([channel[y == label] for label in y.unique()]) for channel in bias]
        return sum(of_all) / len(bias), sum(of_class) / len(bias)

    def _tell_health(self) -> None:
        """Log what is wrong with the adversary, where the method has one, after an epoch."""
        *earlier, now = self.records
        metrics: dict[str, Any] = now.metrics
        if "train/h_accuracy" not in metrics:
            return
        if "train/mi" in metrics:
            metrics = metrics | {"train/h_entropy": -metrics["train/mi"]}
        before: dict[str, Any] | None = earlier[-1].metrics if earlier and earlier[-1].phase == now.phase else None
        spec = self.experiment.data.spec
        sizes = spec.num_values_per_bias or (spec.num_bins,)
        largest = sum(map(math.log, sizes)) / len(sizes)
        chance, class_chance = self._bias_chance
        for sentence in health.diagnose(metrics, chance, largest, before, class_chance):
            log.warning("%s", sentence)

    def _finish_epoch(self, record: EpochRecord, board: TensorBoard | None) -> None:
        began = perf_counter()
        predictions = self.experiment.predict(self.experiment.trainer.evaluated, "val")
        scores = compute(predictions, self.experiment.config.evaluation.metrics)
        val = {f"val/{name}": value for name, value in scores.items()}
        beside = {"train/h_chance": self._bias_chance[0]} if "train/h_accuracy" in record.metrics else {}
        train = record.metrics | beside
        place = {name: getattr(record, name) for name in ("phase", "method", "epoch", "total_epoch", "step")}
        times = {
            "time/images_per_second": record.images_per_second,
            "time/seconds": record.seconds + perf_counter() - began,
        }
        self.records.append(Epoch.model_validate(place | train | val | times))
        if board is not None:
            of_epoch = beside | val | times
            board.scalars({name: value for name, value in of_epoch.items() if value is not None}, record.step)
            show_confusion(board, predictions, self.experiment.data.spec.class_names, record.step)
            board.flush()  # before the checkpoint that says that this epoch is over
        every = self.experiment.config.logging.checkpoint_interval_epochs
        if self.best_record is self.records[-1]:
            self._save(self.folder.best)
        if record.total_epoch % every == 0 or self.experiment.trainer.done:
            self._save(self.folder.checkpoint(record.total_epoch))
        self._save(self.folder.last)
        self.folder.write_metrics(self.records)
        log.info(
            "epoch %d/%d, phase %d %s: %s | val %s",
            record.total_epoch,
            self.experiment.trainer.total_epochs,
            record.phase,
            record.method,
            _told({name.removeprefix("train/"): v for name, v in train.items() if "/lr_" not in name}),
            _told(dict(list(scores.items())[:HEADLINES])),
        )
        self._tell_health()

    @property
    def best_record(self) -> Epoch | None:
        """The record of the best epoch of the last phase (the earliest of equals), None before that phase.

        An epoch whose metric is undefined is never the best.
        """
        name = self.experiment.config.evaluation.best_model_metric
        last_phase = [r for r in self.records if r.phase == len(self.experiment.config.training.phases)]
        scored = [(value, r) for r in last_phase if (value := r.metrics[f"val/{name}"]) is not None]
        best = min if lower_is_better(name) else max
        return best(scored, key=lambda pair: pair[0], default=(None, None))[1]

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return kept.of_data(self.experiment.data)

    def _save(self, path: Path) -> None:
        config, state = self.experiment.config.model_dump(), self.experiment.trainer.state_dict()
        checkpoint.save(path, Checkpoint(config, state, [epoch.model_dump() for epoch in self.records], self._kept))


def _share_of_most_frequent(parts: list[Tensor]) -> float:
    """Return the share of known labels that are the most frequent one of their part."""
    counts = [torch.bincount(part[part != IGNORE]) for part in parts]
    return sum(int(count.max()) for count in counts if len(count)) / max(sum(int(count.sum()) for count in counts), 1)


def _told(values: Mapping[str, float | None]) -> str:
    return " ".join(f"{name}={'undefined' if value is None else f'{value:.4f}'}" for name, value in values.items())


def start(config: Config, overwrite: bool = False) -> Run:
    """Return a new run in the folder that the configuration names; raises UserError where one is already."""
    experiment = build(config)
    folder = RunFolder(Path(config.logging.output_dir) / config.project.experiment_name)
    folder.create(configuration.to_yaml(config), overwrite)
    if skipped := experiment.data.skipped_rows:
        write_text(folder.skipped, "".join(f"{line}\n" for line in skipped))
        log.warning("%d rows of the data are wrong and left out; they are listed in %s", len(skipped), folder.skipped)
    run = Run(experiment, folder, [])
    run._save(folder.last)
    return run


def resume(config: Config, path: Path) -> Run:
    """Return the run that the checkpoint at `path` belongs to, taken up where the checkpoint was written."""
    saved = checkpoint.load(path)
    folder = run_of(path)
    check_same(config, saved, path)
    experiment = build(config, trained=True)
    kept.check_same(experiment.data, saved.data, path, resumed=True)
    with fitting(path):
        experiment.trainer.load_state_dict(saved.trainer)
    if not experiment.trainer.done:
        folder.result.unlink(missing_ok=True)  # of a run that ended earlier
    folder.resume(configuration.to_yaml(config))
    epochs = [Epoch.model_validate(record) for record in saved.records]
    folder.write_metrics(epochs)
    run = Run(experiment, folder, epochs)
    _take_back(run)
    return run


def run_of(path: Path) -> RunFolder:
    """Return the folder of the run that a checkpoint lies in; raises UserError if it lies elsewhere."""
    folder = RunFolder.of_checkpoint(path)
    if folder is None:
        raise UserError(f"{path}: a checkpoint lies in RUN/checkpoints/; put it there so that its run can be found")
    return folder


def _take_back(run: Run) -> None:
    """Remove the checkpoints of epochs that the resumed run is yet to make; best is of those it has, if any."""
    done, best = len(run.records), run.best_record
    for epoch, path in run.folder.epoch_checkpoints().items():
        if epoch > done:
            path.unlink()
    if run.folder.best.exists() and (best is None or len(checkpoint.load(run.folder.best).records) > done):
        run.folder.best.unlink()
        if best is not None and (path := run.folder.checkpoint(best.total_epoch)).exists():
            write_atomic(run.folder.best, lambda file: file.write(path.read_bytes()))
