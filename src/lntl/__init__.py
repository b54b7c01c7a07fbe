"""Train classifiers that do not use a known bias (Kim et al., *Learning Not to Learn*, CVPR 2019)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lntl.deploy.loading import Classifier

__version__ = "0.2.0"


def load(path: str | Path, device: str | None = None, trust: str | Sequence[str] = ()) -> "Classifier":
    """Return the classifier of a trained run; its data are not needed.

    Args:
        path: A run folder (its best checkpoint, else its last), a checkpoint, or a .safetensors export.
        device: auto, cpu (the default), cuda, cuda:N or mps.
        trust: Your own modules that may be imported to load your own model; the environment variable LNTL_TRUST can
            name more. No other code named in a file is run.

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
