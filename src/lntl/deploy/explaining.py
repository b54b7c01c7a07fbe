"""Explain the predictions of a trained run for files, beside those of plain training, by integrated gradients."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lntl.deploy.inputs import Inputs, Layout, read
from lntl.deploy.loading import Classifier, check_probabilities, load
from lntl.errors import UserError
from lntl.evaluation.saliency import NEEDS_CAPTUM, ExplainedExample, captum_installed, integrated_gradients
from lntl.runs.folder import RunFolder

log = logging.getLogger("lntl")

BATCH_SIZE = 16  # images that are read together


@dataclass(frozen=True)
class Explanation:
    """Examples to explain, and the classifiers whose predictions are explained.

    Attributes:
        classifiers: The run, and plain training if the run has it, by name.
        inputs: The images or vectors.
        num_given: Number of examples in the files; `inputs` has only the first ones if a limit is set.
        steps: Points of the integral.
    """

    classifiers: dict[str, Classifier]
    inputs: Inputs
    num_given: int
    steps: int

    def __iter__(self) -> Iterator[ExplainedExample]:
        """Yield each example with the attributions of its predictions; raises UserError if it cannot be read."""
        run = next(iter(self.classifiers.values()))
        source = run.transform.source(self.inputs.images)
        device = next(run.parameters()).device
        for index in torch.arange(len(self.inputs.names)).split(BATCH_SIZE):
            x = source.load(index)
            attributions = {
                name: integrated_gradients(classifier, x.to(device), self.steps)
                for name, classifier in self.classifiers.items()
            }
            for result in attributions.values():
                check_probabilities(result.probability)
            images = _to_pixels(x, run) if x.dim() == 4 else None
            for row, position in enumerate(index.tolist()):
                yield ExplainedExample(
                    name=self.inputs.names[position],
                    picture=None if images is None else images[row],
                    predictions={
                        name: (run.class_names[int(a.predicted[row])], float(a.probability[row]))
                        for name, a in attributions.items()
                    },
                    values={name: a.values[row] for name, a in attributions.items()},
                )


def explain(
    target: Path,
    targets: Sequence[Path],
    layout: Layout,
    limit: int,
    steps: int,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> Explanation:
    """Return the explanation of a run's predictions for files; each example is computed when it is iterated over.

    Args:
        target: A run folder (its best checkpoint, and plain training inside it), a checkpoint or an export.
        targets: As for `inputs.read`.
        layout: As for `inputs.read`.
        limit: Number of examples; the first ones are taken.
        steps: Points of the integral.
        device: As for `load`.
        trust: As for `load`.

    Raises:
        UserError: As for `load` and `inputs.read`, or if Captum is not installed.
    """
    if not captum_installed():
        raise UserError(NEEDS_CAPTUM)
    classifiers = {"this run": load(target, device, trust)}
    erm = RunFolder(RunFolder(target).erm).best_or_last
    if target.is_dir() and erm.exists():
        classifiers["plain training (ERM)"] = load(erm, device, trust)
    inputs = read(targets, classifiers["this run"].description.get("data", {}), layout)
    images = inputs.images[:limit]  # type: ignore[index] # `read` gives a list of paths or an array
    return Explanation(classifiers, Inputs(inputs.names[:limit], images), len(inputs.names), steps)


def _to_pixels(x: Tensor, classifier: Classifier) -> Tensor:
    """Return network input as images uint8 (N, 3, H, W)."""
    mean, std = classifier.transform.mean_and_std()
    images = (x.float() * std + mean).clamp(0, 1)
    if images.shape[1] != 3:
        images = images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return (255 * images).round().to(torch.uint8)
