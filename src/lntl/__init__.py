"""Train classifiers that do not use what they should not know (Kim et al., *Learning Not to Learn*, CVPR 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lntl.deploy.loading import Classifier

__version__ = "0.2.0"


def load(path: str | Path, device: str | None = None, trust: str | Sequence[str] = ()) -> "Classifier":
    """Return the classifier of a run folder (its best checkpoint), of a checkpoint, or of a .safetensors export.

    It is a torch module with `predict`, `features`, `class_names` and `transform`; the data of the run are not needed.
    device: auto, cpu (the default), cuda, cuda:N or mps. trust: modules that may be imported for a model of your own; a
    file never makes others run that are not imported already.
    """
    from lntl.deploy import loading  # here, so that importing the package is instant

    return loading.load(path, device, trust)
