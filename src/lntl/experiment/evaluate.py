"""Evaluate checkpoints, and conclude a run with its result."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lntl import config as configuration
from lntl import ranks
from lntl.config import Config
from lntl.errors import DeadEndError, UserError
from lntl.evaluation.metrics import METRICS, lower_is_better
from lntl.evaluation.predict import Predictions, draw_embedded_images, group_by_one_bias
from lntl.evaluation.summary import summarise
from lntl.experiment import processes
from lntl.experiment.build import Experiment
from lntl.experiment.checkpoints import evaluated_weights, load_networks, open_checkpoint
from lntl.experiment.run import (
    Run,
    Stop,
    Watch,
    exhaust,
    flush_denormals,
    folder_of_checkpoint,
    run_folder,
    start,
    start_or_resume,
    stop_signals,
)
from lntl.ops import mean_over_positions
from lntl.runs import checkpoint, formats
from lntl.runs.checkpoint import Checkpoint, NotFiniteError
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import CheckpointScores, Result
from lntl.runs.lock import hold_lock
from lntl.trackers import Embedding
from lntl.types import IGNORE, ImageSplit


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a checkpoint on a split: its configuration, all measurements, and the predictions."""

    config: Config
    path: Path
    measured: formats.Evaluation
    predictions: Predictions

    def scores(self) -> CheckpointScores:
        """Return the configured metrics.

        Returns:
            The value of each metric by its name, in the field that has the name of the split; None if undefined.
        """
        measurements = self.measured
        values = {name: measurements.metrics[name].value for name in self.config.evaluation.metrics}
        return CheckpointScores.model_validate(
            {"checkpoint": measurements.checkpoint, "epoch": measurements.epoch, measurements.split: values}
        )

    def write(self) -> list[Path]:
        """Write metrics and predictions into evaluation/ of the run.

        Returns:
            The files; [] if the checkpoint is not in a run folder.
        """
        folder = RunFolder.of_checkpoint(self.path)
        if folder is None or not folder.config.exists():
            return []
        folder.check_links()
        metrics = folder.evaluation_of(self.path, self.measured.split)
        predictions = metrics.with_suffix(".npz")
        metrics.parent.mkdir(exist_ok=True)
        columns = ("y", "probabilities", "group", "row", "bias_hits", "bias_labels")
        arrays = {name: getattr(self.predictions, name).numpy() for name in columns}
        write_atomic(predictions, lambda file: np.savez_compressed(file, **arrays))
        write_json(metrics, self.measured)
        return [metrics, predictions]


def evaluate_checkpoint(
    path: Path, split: str = "test", device: str | None = None, trust: Sequence[str] = ()
) -> Evaluation:
    """Return the evaluation of a checkpoint on a split, with the configuration inside it; nothing is written.

    Args:
        path: The checkpoint.
        split: "test", "val" or "train".
        device: The device to use instead of the configuration's.
        trust: The user's modules that may be imported to load the checkpoint.

    Returns:
        All measurements, and the predictions.

    Raises:
        UserError: As `open_checkpoint`; or if logits are infinite or NaN.
    """
    experiment, saved = open_checkpoint(path, device, trust)
    return _evaluate(experiment, path, saved, split)


def _evaluate(experiment: Experiment, path: Path, saved: Checkpoint, split: str) -> Evaluation:
    networks = load_networks(experiment, saved, path)
    try:
        predictions = experiment.predict(networks, split, len(saved.records))
    except NotFiniteError as error:
        raise NotFiniteError(f"{path}: {error}") from error
    data, spec = experiment.data, experiment.data.spec
    summary = summarise(
        predictions, spec.class_names, spec.bias_value_names, data.label_kind, data.bias_kind, spec.biases
    )
    measurements = formats.Evaluation(checkpoint=str(path), epoch=len(saved.records), split=split, **dict(summary))
    if spec.biases:
        measurements.per_bias = {
            bias.name: summarise(
                group_by_one_bias(predictions, bias, *experiment.labels_of_bias(index, split)),
                spec.class_names,
                bias.values,
                data.label_kind,
                bias.name,
            ).of_bias()
            for index, bias in enumerate(spec.biases)
        }
    return Evaluation(experiment.config, path, measurements, predictions)


def conclude(run: Run, erm: Result | None, split: Literal["test", "val"] = "test") -> Result:
    """Evaluate the last and the best checkpoint of a trained run on a split; write evaluation/ and result.json.

    Args:
        run: The run, trained to its end.
        erm: The result of plain training on the same data, if any.
        split: The split on which the run is evaluated; only this function reads the test set.

    Returns:
        The content of result.json.
    """
    config = run.experiment.config
    scores, evaluation, weights = {}, None, dict[str, Tensor]()
    # The last checkpoint comes last, so that the networks keep its weights.
    for kind, path in (("best", ranks.compute_on_first(lambda: run.folder.best_or_last)), ("last", run.folder.last)):
        saved = ranks.compute_on_first(partial(checkpoint.load, path))
        if evaluation is not None and _have_equal_tensors(weights, evaluated_weights(saved)):
            new_fields = {"checkpoint": str(path), "epoch": len(saved.records)}
            evaluation = replace(evaluation, path=path, measured=evaluation.measured.model_copy(update=new_fields))
        else:
            evaluation, weights = _evaluate(run.experiment, path, saved, split), evaluated_weights(saved)
        if ranks.is_first():
            evaluation.write()
        scores[kind] = evaluation.scores()
    result = Result(
        project=config.project.name,
        experiment=config.project.experiment_name,
        method=config.training.phases[-1].method,
        seed=config.project.seed,
        data=run.experiment.data.source,
        sizes={name: len(part) for name, part in run.experiment.data.splits.items()},
        selection=f"best: {_describe_selection(run)}; last: the state after the last epoch; "
        f"{_describe_start(config)}no choice is made on the test set",
        last=scores["last"],
        best=scores["best"],
        erm=erm,
        training_seconds=round(sum(epoch.seconds for epoch in run.records), 1),
    )
    if config.training.start_from is not None:
        result.start_from = config.training.start_from
    if not ranks.is_first():
        return result
    write_json(run.folder.result, result)
    split_scores = getattr(scores["last"], split)
    defined_scores = {f"{split}/{name}": value for name, value in split_scores.items() if value is not None}
    step = run.records[-1].step
    with run.open_trackers(training=False) as trackers:
        trackers.send(lambda tracker: tracker.features(lambda: _embedding(run.experiment), step))
        trackers.send(lambda tracker: tracker.results(defined_scores, step))
        trackers.send(lambda tracker: tracker.files([run.folder.config, run.folder.result]))
    return result


def _embedding(experiment: Experiment) -> Embedding:
    """Return z of some test images, averaged over its positions."""
    networks, device = experiment.networks.eval(), experiment.device
    split, spec = experiment.data.splits["test"], experiment.data.spec
    index = draw_embedded_images(len(split), experiment.config.project.seed)
    on_device, parts = split.to(device), index.to(device).split(experiment.config.evaluation.batch_size)
    z, labels = [], list[tuple[str, str]]()
    with torch.inference_mode():
        for batch in map(on_device.batch, parts):
            z.append(mean_over_positions(networks.f(batch.x)).float().cpu())
            for y, group in zip(batch.y.tolist(), batch.group.tolist(), strict=True):
                bias = "unknown" if group == IGNORE else spec.bias_value_names[group % spec.num_bias_values]
                labels.append((spec.class_names[y], bias))
    return Embedding(torch.cat(z), labels, split.pixels(index) if isinstance(split, ImageSplit) else None)


def _have_equal_tensors(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    """Return whether two state dicts have equal tensors, for example because the last epoch is the best."""
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)


def _describe_start(config: Config) -> str:
    """Return a clause about the checkpoint from which training started, and how it was chosen; "" without one."""
    path = config.training.start_from
    if path is None:
        return ""
    choice_note = ", chosen with all of val" if Path(path).name == RunFolder(Path()).best.name else ""
    return f"training began with the networks of {path}{choice_note}; "


def _describe_selection(run: Run) -> str:
    """Return a description of how the best checkpoint was chosen."""
    name = run.experiment.config.evaluation.best_model_metric
    note = run.experiment.val_note
    if run.best_record is None:
        return f"the same as last, because {name} is undefined on val ({note}) after every epoch"
    if not run.folder.best.exists():
        epoch = run.best_record.total_epoch
        return f"the same as last, because the checkpoint of epoch {epoch}, the best on val, is missing"
    order = "lowest" if lower_is_better(name) else "highest"
    num_groups, num_all_groups = run.experiment.count_groups("val") if METRICS[name].over_groups else (0, 0)
    groups_note = f" over {num_groups} of {num_all_groups} groups" if num_groups < num_all_groups else ""
    return f"{order} {name}{groups_note} on val ({note}) among the epochs of the last phase"


def train(
    config: Config,
    resume_from: str | None = None,
    overwrite: bool = False,
    *,
    split: Literal["test", "val"] = "test",
    watch: Watch = exhaust,
    trust: Sequence[str] = (),
) -> tuple[Run, Result]:
    """Train and evaluate a configuration, and plain training, too, if evaluation.erm_epochs is set.

    If the run has several processes (`processes.join`), they train together, and only rank 0 writes files. RUN and
    RUN/erm are locked meanwhile; Ctrl-C, SIGTERM and SIGHUP save the state and raise Interrupted.

    Args:
        config: The configuration.
        resume_from: As for `start_or_resume`.
        overwrite: As for `start_or_resume`.
        split: The split on which the run is evaluated.
        watch: Called with each run and its events; it must iterate over them, and may show them.
        trust: Modules that a checkpoint to resume may name, besides those that the configuration names.

    Returns:
        The run and the content of its result.json.
    """
    config = processes.join(config)
    is_path = resume_from not in (None, "auto")
    path = ranks.compute_on_first(lambda: RunFolder.resolve(Path(str(resume_from)), "last") if is_path else None)
    folder = run_folder(config) if path is None else folder_of_checkpoint(path)
    with ExitStack() as stack:
        signal_received = stack.enter_context(stop_signals())
        if ranks.is_first():  # the others write nothing
            stack.enter_context(hold_lock(folder.path))
            if config.evaluation.erm_epochs > 0 or folder.erm.exists():
                stack.enter_context(hold_lock(folder.erm))
        stack.enter_context(flush_denormals())

        def stop() -> bool:
            return signal_received() or processes.is_orphan()

        run = start_or_resume(config, resume_from if path is None else str(path), overwrite, trust)
        erm = train_erm(run, resume_from is not None, overwrite, stop=stop, watch=watch)
        watch(run, run.train(stop))
        return run, conclude(run, erm, split)


def train_erm(
    run: Run, resumed: bool, overwrite: bool = False, *, stop: Stop = lambda: False, watch: Watch = exhaust
) -> Result | None:
    """Run plain training in RUN/erm, for comparison, if evaluation.erm_epochs is set.

    Args:
        run: The run.
        resumed: Whether to use or resume an existing plain training.
        overwrite: Whether to replace an existing plain training.
        stop: As for `Run.train`.
        watch: As for `train`.

    Returns:
        Its result; None if evaluation.erm_epochs is 0.
    """
    if run.experiment.config.evaluation.erm_epochs == 0:
        return None
    config = configuration.erm_config(run.experiment.config, run.folder.path)
    if (
        resumed
        and (result := ranks.compute_on_first(lambda: _read_finished_result(config, RunFolder(run.folder.erm))))
        is not None
    ):
        return result
    try:
        erm = start_or_resume(config, "auto" if resumed else None, overwrite)
    except DeadEndError:
        erm = start(config, overwrite=True)  # the existing run has other settings, such as more epochs
    watch(erm, erm.train(stop))
    return conclude(erm, None)


def _read_finished_result(config: Config, folder: RunFolder) -> Result | None:
    """Return the result of a finished run, None if it is damaged, lacks a metric or has another configuration."""
    try:
        result = folder.read_result()
        saved_config = folder.config.read_text(encoding="utf-8") if result is not None else ""
    except (UserError, OSError, UnicodeDecodeError):
        return None
    if result is None or not set(config.evaluation.metrics) <= result.last.test.keys():
        return None
    return result if saved_config == configuration.to_yaml(config) else None
