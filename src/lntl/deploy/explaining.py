"""What the predictions of a trained run for files rest on, and those of plain training beside it."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lntl.deploy.inputs import Inputs, Layout, read
from lntl.deploy.loading import Classifier, check_probabilities, load
from lntl.errors import UserError
from lntl.evaluation.saliency import NEEDS_CAPTUM, Explained, captum_installed, integrated_gradients
from lntl.runs.folder import RunFolder

log = logging.getLogger("lntl")

AT_ONCE = 16  # images that are read together


@dataclass(frozen=True)
class Explanation:
    """What is to be explained.

    Attributes:
        classifiers: The run, and plain training if the run has it, by name.
        inputs: The images or vectors.
        given: How many there are, before the limit.
        steps: Points of the integral.
    """

    classifiers: dict[str, Classifier]
    inputs: Inputs
    given: int
    steps: int

    def __iter__(self) -> Iterator[Explained]:
        """Yield each example with what its predictions rest on; raises UserError if it cannot be read."""
        run = next(iter(self.classifiers.values()))
        source = run.transform.source(self.inputs.images)
        device = next(run.parameters()).device
        for index in torch.arange(len(self.inputs.names)).split(AT_ONCE):
            x = source.load(index)
            found = {
                name: integrated_gradients(classifier, x.to(device), self.steps)
                for name, classifier in self.classifiers.items()
            }
            for attributions in found.values():
                check_probabilities(attributions.probability)
            pictures = _pictures(x, run) if x.dim() == 4 else None
            for place, position in enumerate(index.tolist()):
                yield Explained(
                    name=self.inputs.names[position],
                    picture=None if pictures is None else pictures[place],
                    predictions={
                        name: (run.class_names[int(a.predicted[place])], float(a.probability[place]))
                        for name, a in found.items()
                    },
                    values={name: a.values[place] for name, a in found.items()},
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
        targets: As of `inputs.read`.
        layout: As of `inputs.read`.
        limit: Number of examples; the first ones are taken.
        steps: Points of the integral.
        device: As of `load`.
        trust: As of `load`.

    Raises:
        UserError: As of `load` and `inputs.read`, or if Captum is not installed.
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


def _pictures(x: Tensor, classifier: Classifier) -> Tensor:
    """Return network input as images uint8 (N, 3, H, W)."""
    mean, std = classifier.transform.mean_and_std()
    unit = (x.float() * std + mean).clamp(0, 1)
    if unit.shape[1] != 3:
        unit = unit.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return (255 * unit).round().to(torch.uint8)
