"""Evaluate checkpoints, and conclude a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lntl.config import Config
from lntl.evaluation import summary
from lntl.evaluation.metrics import lower_is_better
from lntl.evaluation.predict import Predictions, by_one_bias
from lntl.experiment.board import show_features, show_settings
from lntl.experiment.build import Experiment
from lntl.experiment.opened import load_networks, open_checkpoint
from lntl.experiment.resumable import flat
from lntl.experiment.run import Run
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import CheckpointScores, Result
from lntl.runs.tensorboard import TensorBoard
from lntl.types import BiasSpec, DataSpec


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint on a split: its configuration, everything that was measured, and the kept predictions."""

    config: Config
    path: Path
    facts: dict[str, Any]  # checkpoint, epoch, split, and what evaluation.summary tells
    predictions: Predictions

    def scores(self) -> CheckpointScores:
        """Return the values of the configured metrics under the name of the split."""
        values = {name: self.facts["metrics"][name]["value"] for name in self.config.evaluation.metrics}
        return CheckpointScores.model_validate(
            {"checkpoint": self.facts["checkpoint"], "epoch": self.facts["epoch"], self.facts["split"]: values}
        )

    def write(self) -> list[Path]:
        """Write the facts and the predictions into the run's folder; return the files, none outside of a run."""
        folder = RunFolder.of_checkpoint(self.path)
        if folder is None:
            return []
        told = folder.evaluation_of(self.path, self.facts["split"])
        kept = told.with_suffix(".npz")
        told.parent.mkdir(exist_ok=True)
        columns = ("y", "probabilities", "group", "row", "bias_hits", "bias_labels")
        arrays = {name: getattr(self.predictions, name).numpy() for name in columns}
        write_atomic(kept, lambda file: np.savez_compressed(file, **arrays))
        write_json(told, self.facts)
        return [told, kept]


def evaluate_checkpoint(
    path: Path, split: str = "test", device: str | None = None, trust: Sequence[str] = ()
) -> Evaluation:
    """Return the evaluation of a checkpoint, with the configuration inside it, on a split; nothing is written.

    trust: as of `open_checkpoint`.
    """
    experiment, saved = open_checkpoint(path, device, trust)
    return _evaluate(experiment, path, saved, split)


def _evaluate(experiment: Experiment, path: Path, saved: Checkpoint, split: str) -> Evaluation:
    predictions = experiment.predict(load_networks(experiment, saved, path), split)
    spec = experiment.data.spec
    told = summary.summarise(predictions, spec.class_names, spec.bias_value_names)
    facts: dict[str, Any] = {"checkpoint": str(path), "epoch": len(saved.records), "split": split}
    if spec.biases:
        facts["per_bias"] = {one.name: _of_one(predictions, spec, one) for one in spec.biases}
    return Evaluation(experiment.config, path, facts | told, predictions)


_OF_BIAS = ("bias_value_names", "metrics", "by_bias", "groups", "warnings")


def _of_one(predictions: Predictions, spec: DataSpec, one: BiasSpec) -> dict[str, Any]:
    """Return what the summary says of one of several biases, over the images of which all biases are known."""
    told = summary.summarise(by_one_bias(predictions, one), spec.class_names, one.values)
    return {name: told[name] for name in _OF_BIAS}


def conclude(run: Run, erm: Result | None, split: Literal["test", "val"] = "test") -> Result:
    """Evaluate the last and the best checkpoint on a split, the test set once; write evaluation/ and result.json."""
    config = run.experiment.config
    scores = {}
    # In this order: the networks are then those of the last.
    for kind, path in (("best", run.folder.best_or_last), ("last", run.folder.last)):
        evaluation = _evaluate(run.experiment, path, checkpoint.load(path), split)
        evaluation.write()
        scores[kind] = evaluation.scores()
    result = Result(
        project=config.project.name,
        experiment=config.project.experiment_name,
        method=config.training.phases[-1].method,
        seed=config.project.seed,
        data=run.experiment.data.source,
        sizes={name: len(part) for name, part in run.experiment.data.splits.items()},
        selection=f"best: {_selection(run)}; last: no choice; the test set chooses nothing",
        last=scores["last"],
        best=scores["best"],
        erm=erm,
        training_seconds=round(sum(epoch.metrics["time/seconds"] or 0.0 for epoch in run.records), 1),
    )
    write_json(run.folder.result, result)
    if config.logging.use_tensorboard:
        with TensorBoard(run.folder.tensorboard) as board:
            show_features(board, run.experiment, run.records[-1].step)
            show_settings(board, flat(config.model_dump()), getattr(scores["last"], split))
    return result


def _selection(run: Run) -> str:
    name = run.experiment.config.evaluation.best_model_metric
    if run.best_record is None:
        return f"as last, for {name} is undefined on val ({run.experiment.data.val_note}) after every epoch"
    if not run.folder.best.exists():
        return f"as last, for the checkpoint of epoch {run.best_record.total_epoch}, the best on val, is not there"
    order = "lowest" if lower_is_better(name) else "highest"
    return f"{order} {name} on val ({run.experiment.data.val_note}) among the epochs of the last phase"
