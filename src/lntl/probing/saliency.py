"""Saliency: integrated gradients of the predictions for some test examples, for the run and for ERM."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lntl.data.transforms import thumbnails
from lntl.errors import UserError
from lntl.evaluation.saliency import Attributions, heat_maps, integrated_gradients
from lntl.probing.leakage import Subject
from lntl.runs.files import read_arrays, read_json, write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Evaluation, Saliency, SaliencyExample
from lntl.seeding import derive, permutation
from lntl.text import shell
from lntl.types import IGNORE, ImageSplit, Networks, Split

log = logging.getLogger("lntl")

MAX_MISTAKES, SAMPLE_SIZE = 8, 8  # largest numbers of misclassified examples and of examples drawn from the groups
STEPS = 8  # points of the integral; the gradients of one example take the time of about 24 predictions
MAX_SIDE = 128  # largest side of a stored image, in pixels
_SEED = 0  # seed of the choice of examples; the same for all runs, so that runs can be compared


def write_saliency(subject: Subject, folder: RunFolder) -> None:
    """Write saliency.json and saliency.npz: the attributions of an evaluated checkpoint for some test examples.

    Raises:
        UserError: If the checkpoint has not been evaluated, Captum is not installed, or the model is not
            differentiable.
    """
    data, split = subject.experiment.data, subject.experiment.loader("test").split
    predicted = _read_predicted_classes(subject, folder)
    y, group = split.y.cpu(), split.group.cpu()
    mistakes = spread_over_groups((predicted != y).nonzero()[:, 0], group, MAX_MISTAKES)
    is_unused = torch.ones(len(y), dtype=torch.bool)
    is_unused[mistakes] = False
    index = torch.cat([mistakes, spread_over_groups(is_unused.nonzero()[:, 0], group, SAMPLE_SIZE)])
    log.info("saliency of %d test examples", len(index))
    x = split.batch(index.to(split.y.device)).x
    run = _explain(subject.networks, x)
    erm = None if subject.erm is None else _explain(subject.erm, x)
    names, values = data.spec.class_names, data.spec.bias_value_names
    bias = torch.where(group == IGNORE, IGNORE, group % max(1, len(values)))
    examples = [
        SaliencyExample(
            name=data.row_name(int(split.row[position])),
            label=names[y[position]],
            bias=None if bias[position] == IGNORE else values[bias[position]],
            predicted=names[run.predicted[i]],
            erm_predicted=None if erm is None else names[erm.predicted[i]],
            mistake=i < len(mistakes),
        )
        for i, position in enumerate(index.tolist())
    ]
    attributions = [run] if erm is None else [run, erm]
    arrays: dict[str, Any]
    if x.dim() == 4:
        heat = torch.stack([(255 * heat_maps(result.values)).round().to(torch.uint8) for result in attributions])
        arrays = {
            "pictures": thumbnails(_load_displayed_images(split, index, x), MAX_SIDE).numpy(),
            "maps": thumbnails(heat, MAX_SIDE).numpy(),
        }
    else:
        arrays = {"maps": torch.stack([result.values.flatten(1) for result in attributions]).numpy()}
    content = Saliency(
        checkpoint=str(subject.path),
        epoch=subject.epoch,
        steps=STEPS,
        kind="images" if x.dim() == 4 else "vectors",
        examples=examples,
    )
    write_atomic(folder.saliency_maps, lambda file: np.savez_compressed(file, **arrays))
    write_json(folder.saliency, content)


def is_saliency_outdated(folder: RunFolder) -> bool:
    """Return whether saliency.json is damaged, or describes another epoch than the evaluation of the run."""
    try:
        evaluated = read_json(folder.evaluation_of(folder.best_or_last), Evaluation)
        return read_json(folder.saliency, Saliency).epoch != evaluated.epoch
    except UserError:
        return True


def _read_predicted_classes(subject: Subject, folder: RunFolder) -> Tensor:
    """Return the predicted class of each test example, from the stored evaluation of the checkpoint."""
    path = folder.evaluation_of(subject.path).with_suffix(".npz")
    remedy = f"evaluate again: lntl eval {shell(subject.path)}"
    if not path.exists():
        raise UserError(f"{path} is missing; {remedy}")
    saved = read_arrays(path, {"row": 1, "probabilities": 2})
    if saved["row"].tolist() != subject.experiment.data.splits["test"].row.tolist():
        raise UserError(f"{path}: its rows are not those of the test split; {remedy}")
    return torch.from_numpy(saved["probabilities"].argmax(axis=1))


def spread_over_groups(index: Tensor, group: Tensor, count: int) -> Tensor:
    """Return a random choice of at most `count` positions in `index`, from as many groups as possible.

    group: the group of each position of the split, (n,) int64. The result is sorted by group.
    """
    if not len(index):
        return index
    order = index[permutation(len(index), derive(_SEED, "saliency"))]
    by_group = group[order].argsort(stable=True)
    sizes = group[order][by_group].unique_consecutive(return_counts=True)[1]
    rank = torch.empty_like(order)  # 0 for the first example of its group, 1 for the second, ...
    rank[by_group] = torch.cat([torch.arange(size) for size in sizes.tolist()])
    chosen = order[rank.argsort(stable=True)][:count]
    return chosen[group[chosen].argsort(stable=True)]


def _explain(networks: Networks, x: Tensor) -> Attributions:
    networks.eval()
    return integrated_gradients(lambda x: networks.g(networks.f(x)), x, STEPS)


def _load_displayed_images(split: Split, index: Tensor, x: Tensor) -> Tensor:
    """Return images to display, uint8 (n, 3, H, W); if the split has no images, the mean of x over channels in gray."""
    if isinstance(split, ImageSplit):
        return split.pixels(index.to(split.y.device)).cpu()
    gray = x.float().cpu().mean(dim=1, keepdim=True)
    low, high = gray.amin(dim=(2, 3), keepdim=True), gray.amax(dim=(2, 3), keepdim=True)
    return (255 * (gray - low) / (high - low).clamp(min=1e-12)).to(torch.uint8).expand(-1, 3, -1, -1)
