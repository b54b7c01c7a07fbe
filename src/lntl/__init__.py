"""Train classifiers that do not use a known bias (Kim et al., *Learning Not to Learn*, CVPR 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lntl.deploy.loading import Classifier

__version__ = "0.2.0"


def load(path: str | Path, device: str | None = None, trust: str | Sequence[str] = ()) -> "Classifier":
    """Return the classifier of a trained run; the training data are not needed.

    Args:
        path: A checkpoint, a .safetensors export, or a run folder. From a folder the best checkpoint is loaded, or the
            last one if there is no best one.
        device: auto, cpu (the default), cuda, cuda:N or mps.
        trust: Your own modules that may be imported to load your own model; the environment variable LNTL_TRUST can
            name more. Code that is not trusted is never run.

    Returns:
        A torch module with `predict`, `features`, `class_names` and `transform`.

    Raises:
        UserError: If the file cannot be read, is damaged, or names code that is not trusted.

    Example:
        >>> classifier = lntl.load("results/colored_mnist_lntl")  # doctest: +SKIP
        >>> classifier.predict(["a.png", "b.png"])  # probabilities (2, 10)  # doctest: +SKIP
    """
    from lntl.deploy import loading  # imported here because it imports torch

    return loading.load(path, device, trust)
