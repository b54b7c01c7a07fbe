"""What TensorBoard shows of a run besides its curves: the data, who is taken for whom, z, and the settings."""

from typing import Any

import torch

from lntl import figures
from lntl.evaluation import embedding
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import tally
from lntl.experiment.build import Experiment
from lntl.ops import pooled
from lntl.runs.tensorboard import TensorBoard
from lntl.types import IGNORE, Dataset, ImageSplit

SETTINGS = ("project.seed", "data.", "model.", "training.")  # those that make one run differ from another


def show_data(board: TensorBoard, data: Dataset) -> None:
    """Log, for train and test, ten images of each class, a class a row; nothing of data without pictures."""
    for name in ("train", "test"):
        split = data.splits[name]
        if not isinstance(split, ImageSplit):
            continue
        rows = [torch.nonzero(split.y == label)[:10, 0] for label in range(data.spec.num_classes)]
        board.pictures(f"data/{name}", split.pixels(torch.cat(rows)), columns=10)


def show_confusion(board: TensorBoard, predictions: Predictions, class_names: tuple[str, ...], step: int) -> None:
    """Log the confusion matrix of val."""
    counts = {"val": tally(predictions).confusion[0]}
    board.figure("val/confusion_matrix", figures.confusion_matrices(counts, class_names), step)


def show_features(board: TensorBoard, experiment: Experiment, step: int) -> None:
    """Log z of some test images, averaged over its places, for the projector: with the image, class and bias value."""
    networks, device = experiment.networks.eval(), experiment.fabric.device
    split, spec = experiment.data.splits["test"], experiment.data.spec
    index = embedding.chosen(len(split), experiment.config.project.seed)
    there, parts = split.to(device), index.to(device).split(experiment.config.evaluation.batch_size)
    z, classes, biases = [], list[str](), list[str]()
    with torch.inference_mode():
        for batch in map(there.batch, parts):
            z.append(pooled(networks.f(batch.x)).float().cpu())
            classes += [spec.class_names[y] for y in batch.y.tolist()]
            groups = batch.group.tolist()
            biases += ["unknown" if g == IGNORE else spec.bias_value_names[g % spec.num_bias_values] for g in groups]
    labels = {"class": classes, "bias": biases}
    images = split.pixels(index) if isinstance(split, ImageSplit) else None
    board.embedding("z", torch.cat(z), labels, images, step)


def show_settings(board: TensorBoard, settings: dict[str, Any], scores: dict[str, float | None]) -> None:
    """Log the settings, by dotted path, and the test set's metrics that are defined."""
    kinds = (bool, int, float, str)
    told = {k: v if isinstance(v, kinds) else str(v) for k, v in settings.items() if k.startswith(SETTINGS)}
    board.hyperparameters(told, {f"test/{k}": v for k, v in scores.items() if v is not None})
