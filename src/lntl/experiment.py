"""From a configuration to a finished run: the one module that knows every name."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning_fabric import Fabric

from lntl import config as configuration
from lntl import memory, plugins
from lntl.config import Config
from lntl.data.loader import Loader
from lntl.errors import Interrupted, UserError
from lntl.evaluation import metrics
from lntl.evaluation.predict import predict
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import write_json
from lntl.runs.folder import RunFolder, of_checkpoint
from lntl.runs.tensorboard import TensorBoard
from lntl.seeding import derive
from lntl.training.trainer import NonFiniteLossError, Plan, Step, Trainer
from lntl.types import Networks, Record

log = logging.getLogger("lntl")


@dataclass(frozen=True)
class Experiment:
    """What a configuration stands for: the data, the networks, and the trainer that joins them."""

    config: Config
    fabric: Fabric
    data: Any
    networks: Networks
    trainer: Trainer

    def loader(self, split: str) -> Loader:
        """Return a split in evaluation batches."""
        return Loader(self.data.splits[split], self.config.evaluation.batch_size, self.fabric.device)

    def evaluate(self, networks: Networks, split: str) -> dict[str, float]:
        """Return the configured metrics of the networks on a split."""
        return metrics.compute(
            predict(networks, self.loader(split), self.data.spec.num_groups), self.config.evaluation.metrics
        )


def build(config: Config) -> Experiment:
    """Return the experiment, ready to train; raises UserError where the device or the data are not to be had."""
    memory.keep_freed()
    fabric = Fabric(**_device(config.training.device), precision=config.training.precision)
    data = plugins.load("lntl.data", config.data.name)(config.data)
    torch.manual_seed(derive(config.project.seed, "weights"))
    networks = plugins.load("lntl.models", config.model.name)(data.spec, config.model)
    networks.to(fabric.device, memory_format=torch.channels_last)
    plans = [Plan(p, partial(_method, config=p)) for p in config.training.phases]
    loader = Loader(data.splits["train"], config.training.batch_size, fabric.device)
    trainer = Trainer(fabric, networks, loader, plans, config.project.seed, config.logging.log_interval_batches)
    return Experiment(config, fabric, data, networks, trainer)


def _method(networks: Networks, config: configuration.Phase) -> Any:
    return plugins.load("lntl.methods", config.method)(networks, config)


def _device(name: str) -> dict[str, Any]:
    """Return Fabric's arguments for a device name of the configuration."""
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise UserError(f"training.device: unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    available = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind in available and int(number or 0) >= available[kind]:
        raise UserError(f"training.device: {name} is not available here (found {available[kind]}); use cpu or auto")
    return {"accelerator": kind, "devices": [int(number)] if number else 1}


@dataclass(frozen=True)
class Run:
    """A run in its folder, new or taken up again."""

    experiment: Experiment
    folder: RunFolder
    records: list[dict[str, Any]]  # the metrics of each finished epoch

    def train(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Step | Record]:
        """Train to the end; yield each step and each epoch's record.

        After every step `stop()` is asked; where it says yes the state is saved and Interrupted raised.
        """
        trainer, settings = self.experiment.trainer, self.experiment.config.logging
        board = TensorBoard(self.folder.tensorboard, trainer.total_steps + 1) if settings.use_tensorboard else None
        if board is not None and not self.records:
            _show_data(board, self.experiment.data)
        self._save(self.folder.last)
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
            raise UserError(f"{error}; the last good checkpoint is {self.folder.last}") from error
        finally:
            if board is not None:
                board.close()

    def _finish_epoch(self, record: Record, board: TensorBoard | None) -> None:
        began = perf_counter()
        scores = self.experiment.evaluate(self.experiment.trainer.evaluated, "val")
        val = {f"val/{name}": value for name, value in scores.items()}
        place = {name: getattr(record, name) for name in ("phase", "method", "epoch", "total_epoch", "step")}
        times = {
            "time/images_per_second": record.images_per_second,
            "time/seconds": record.seconds + perf_counter() - began,
        }
        self.records.append(place | record.metrics | val | times)
        every = self.experiment.config.logging.checkpoint_interval_epochs
        if self.best_record is self.records[-1]:
            self._save(self.folder.best)
        if record.total_epoch % every == 0 or self.experiment.trainer.done:
            self._save(self.folder.checkpoint(record.total_epoch))
        self._save(self.folder.last)
        self.folder.write_metrics(self.records)
        if board is not None:
            board.scalars(val | times, record.step)
        log.info(
            "epoch %d/%d, phase %d %s: %s | val %s",
            record.total_epoch,
            self.experiment.trainer.total_epochs,
            record.phase,
            record.method,
            _told({name.removeprefix("train/"): v for name, v in record.metrics.items() if "/lr_" not in name}),
            _told(scores),
        )

    @property
    def best_record(self) -> dict[str, Any] | None:
        """The record of the best epoch of the last phase (the earliest of equals), None before that phase."""
        metric = f"val/{self.experiment.config.evaluation.best_model_metric}"
        last_phase = [r for r in self.records if r["phase"] == len(self.experiment.config.training.phases)]
        return max(last_phase, key=lambda record: record[metric], default=None)

    def _save(self, path: Path) -> None:
        config = self.experiment.config.model_dump()
        checkpoint.save(path, Checkpoint(config, self.experiment.trainer.state_dict(), self.records))


def _told(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.4f}" for name, value in values.items())


def _show_data(board: TensorBoard, data: Any) -> None:
    """Log, for train and test, ten images of each class, a class a row."""
    for name in ("train", "test"):
        split = data.splits[name]
        rows = [torch.nonzero(split.y == label)[:10, 0] for label in range(data.spec.num_classes)]
        board.pictures(f"data/{name}", split.pixels(torch.cat(rows)), columns=10)


def start(config: Config, overwrite: bool = False) -> Run:
    """Return a new run in the folder that the configuration names; raises UserError where one is already."""
    experiment = build(config)
    folder = RunFolder(Path(config.logging.output_dir) / config.project.experiment_name)
    folder.create(configuration.to_yaml(config), overwrite)
    return Run(experiment, folder, [])


def resume(config: Config, path: Path) -> Run:
    """Return the run that the checkpoint at `path` belongs to, taken up where the checkpoint was written."""
    saved = checkpoint.load(path)
    folder = of_checkpoint(path)
    _check_same(config, saved, path)
    experiment = build(config)
    with _fitting(path):
        experiment.trainer.load_state_dict(saved.trainer)
    folder.write_metrics(saved.records)
    return Run(experiment, folder, saved.records)


# What a resumed run may set anew: nothing of it changes what the finished epochs have done.
_FREE = ("project.name", "project.description", "project.experiment_name", "training.device", "logging", "evaluation")


def _check_same(config: Config, saved: Checkpoint, path: Path) -> None:
    now, then = _flat(config.model_dump()), _flat(saved.config)
    last = f"training.phases.{len(saved.config['training']['phases']) - 1}.epochs"
    changed = [
        f"{key} is {now.get(key)!r}, was {then.get(key)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and not key.startswith(_FREE) and key != last
    ]
    if changed:
        raise UserError(
            f"{path}: cannot resume, the configuration differs: {'; '.join(changed)}; use the run's own config.yaml, "
            "or train anew under another project.experiment_name"
        )
    if now[last] < saved.trainer["epoch"] and saved.trainer["phase"] == len(saved.config["training"]["phases"]) - 1:
        raise UserError(
            f"{path}: {saved.trainer['epoch']} epochs of the last phase are done, more than {last} = {now[last]}"
        )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by dotted path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in _flat(value, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): tree}


def load_networks(experiment: Experiment, saved: Checkpoint, path: Path) -> Networks:
    """Return the networks with a checkpoint's weights to evaluate: their average, where it has one."""
    average = saved.trainer["average"]
    weights = saved.trainer["networks"]
    if average is not None:
        weights = {k.removeprefix("module."): v for k, v in average.items() if k.startswith("module.")}
    with _fitting(path):
        experiment.networks.load_state_dict(weights)
    return experiment.networks


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Turn torch's complaint about weights that do not fit into a sentence."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{path}: its weights do not fit the configured networks and optimisers: {reason}") from error


def evaluate_checkpoint(path: Path, split: str = "test", device: str | None = None) -> tuple[Config, dict[str, Any]]:
    """Return the configuration of a checkpoint and its facts: file, epoch, and metrics on a split."""
    saved = checkpoint.load(path)
    raw = saved.config if device is None else saved.config | {"training": saved.config["training"] | {"device": device}}
    config = configuration.validate(raw, f"{path} (the configuration inside)")
    experiment = build(config)
    scores = experiment.evaluate(load_networks(experiment, saved, path), split)
    return config, {"checkpoint": str(path), "epoch": len(saved.records), split: scores}


def conclude(run: Run, erm: dict[str, Any] | None) -> dict[str, Any]:
    """Evaluate the last and the best checkpoint on the test set, once, and write result.json."""
    config, folder = run.experiment.config, run.folder
    result = {
        "experiment": config.project.experiment_name,
        "method": config.training.phases[-1].method,
        "seed": config.project.seed,
        "data": run.experiment.data.source,
        "selection": f"best: highest {config.evaluation.best_model_metric} on val ({run.experiment.data.val_note}) "
        "among the epochs of the last phase; last: no choice; the test set chooses nothing",
        "last": evaluate_checkpoint(folder.last)[1],
        "best": evaluate_checkpoint(folder.best)[1],
        "erm": erm,
        "training_seconds": round(sum(record["time/seconds"] for record in run.records), 1),
    }
    write_json(folder.result, result)
    return result
