"""Predict images in batches with a trained classifier, and write the predictions to a table."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from lntl.data.decoding import UnreadableImageError
from lntl.data.eval_transform import Source
from lntl.data.loader import ahead
from lntl.deploy.inputs import Inputs, Layout, read
from lntl.deploy.loading import BATCH_SIZE, Classifier, check_probabilities
from lntl.errors import UserError
from lntl.runs.files import make_write_error, write_atomic
from lntl.text import without_formula

MAX_NAMES = 10  # largest number of unreadable images that an error names
# Takes a description and a total; returns a context manager that yields a function to advance the progress.
Progress = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]


def predict_files(
    classifier: Classifier,
    targets: Sequence[Path],
    out: Path,
    features: Path | None,
    layout: Layout,
    on_error: Literal["stop", "skip"],
    escape_formulas: bool,
    progress: Progress,
) -> "Prediction":
    """Predict folders, image files, tables of paths or an .npz file, as `lntl predict` does.

    Args:
        classifier: The classifier.
        targets: As for `inputs.read`.
        out: As for `Prediction.write`.
        features: As for `Prediction.write`.
        layout: As for `inputs.read`.
        on_error: As for `Prediction`.
        escape_formulas: As for `Prediction`.
        progress: Makes the context in which the progress is shown; see `Progress`.

    Raises:
        UserError: As for `inputs.read` and `Prediction.write`; or if a file would be both read and written.
    """
    for path in (out, features):
        if path is not None and path.resolve() in [target.resolve() for target in targets]:
            raise UserError(f"{path}: is both read and written; name another file to write")
    inputs = read(targets, classifier.description.get("data", {}), layout)
    for path in (out, features):
        if path is not None and _is_read(path, inputs):
            raise UserError(f"{path}: is one of the images to predict; name another file to write")
    with progress("images", len(inputs.names)) as advance:
        prediction = Prediction(classifier, inputs, on_error, escape_formulas, advance)
        prediction.write(out, features)
    return prediction


def _is_read(path: Path, inputs: Inputs) -> bool:
    """Return whether a file is one of the images."""
    if not isinstance(inputs.images, list) or not path.exists():
        return False
    same_name = (Path(image) for image in inputs.images if os.path.basename(str(image)) == path.name)  # noqa: PTH119
    return any(image.exists() and image.samefile(path) for image in same_name)


@dataclass
class Prediction:
    """Predictions of a classifier for images.

    Args:
        classifier: The classifier.
        inputs: The images and their names.
        on_error: For images that cannot be read: stop and write nothing, or skip them.
        escape_formulas: Whether to put an apostrophe before texts that a spreadsheet would read as formulas.
        progress: Called with the number of images after each batch.

    Attributes:
        predicted_indices: Indices of the images that were predicted.
        unreadable: Name and fault of each image that cannot be read.
    """

    classifier: Classifier
    inputs: Inputs
    on_error: Literal["stop", "skip"] = "stop"
    escape_formulas: bool = False
    progress: Callable[[int], None] = lambda count: None
    predicted_indices: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def write(self, out: Path, features: Path | None = None) -> None:
        """Write predictions and, optionally, features; memory use does not grow with the number of images.

        Args:
            out: A CSV file for path, prediction and probabilities of each image.
            features: An .npz file for z of each image.

        Raises:
            UserError: If images cannot be read and are not skipped, if no image can be read, or if a probability is
                not finite. Nothing is written then.
        """
        for path in (out, *([features] if features else [])):
            check_target(path)
        if features and features.resolve() == out.resolve():
            raise UserError(f"{out}: is named for the predictions and for the features; name two different files")
        source = self.classifier.transform.source(self.inputs.images)
        with tempfile.TemporaryFile() as spool:
            shape: list[int] = []

            def store(z: Tensor) -> None:
                if features:
                    try:
                        spool.write(z.float().cpu().contiguous().numpy().tobytes())
                    except OSError as error:
                        raise make_write_error(Path(tempfile.gettempdir()) / "features", error) from error
                    shape[:] = z.shape[1:]

            write_atomic(out, lambda file: self._write(file, source, store))
            if features:
                spool.flush()
                z = np.memmap(spool, np.float32, mode="r", shape=(len(self.predicted_indices), *shape))
                names = np.array([self.inputs.names[index] for index in self.predicted_indices])
                write_atomic(features, lambda file: np.savez(file, path=names, features=z))

    def _write(self, file: IO[bytes], source: Source, store: Callable[[Tensor], None]) -> None:
        classes = self.classifier.class_names
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")  # like file names
        try:
            table = csv.writer(text, lineterminator="\n")
            table.writerow(["path", "prediction", *(f"p_{name}" for name in classes)])
            cell = without_formula if self.escape_formulas else str
            for indices, probabilities in self._batches(source, store):
                rows = zip(indices, probabilities.argmax(dim=1).tolist(), probabilities.tolist(), strict=True)
                for index, class_index, row in rows:
                    names = (self.inputs.names[index], classes[class_index])
                    table.writerow([*map(cell, names), *(f"{value:.7g}" for value in row)])
            self._check()
        finally:
            text.detach()

    @torch.inference_mode()
    def _batches(self, source: Source, store: Callable[[Tensor], None]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the indices and probabilities (N, classes) of the readable images of each batch."""
        f, g = self.classifier.f, self.classifier.g
        device = next(self.classifier.parameters()).device
        for batch in _read_batches(source):
            self.unreadable += [f"{self.inputs.names[index]}: {reason}" for index, reason in batch.faults]
            if batch.x is not None and not (self.unreadable and self.on_error == "stop"):
                z = f(batch.x.to(device))
                store(z)
                self.predicted_indices += batch.indices
                probabilities = g(z).float().softmax(dim=1).cpu()
                check_probabilities(probabilities)
                yield batch.indices, probabilities
            self.progress(len(batch.indices) + len(batch.faults))

    def _check(self) -> None:
        """Raise UserError if images cannot be read and are not skipped, or if no image can be read."""
        if not self.unreadable or (self.on_error == "skip" and self.predicted_indices):
            return
        faults, remedy = self.unreadable, "correct them, or leave them out with --on-error skip"
        heading = f"{len(faults)} of {len(self.inputs.names)} images cannot be read, so nothing is written; {remedy}"
        rest = [f"and {len(faults) - MAX_NAMES} more"] if len(faults) > MAX_NAMES else []
        raise UserError("\n  ".join([heading, *faults[:MAX_NAMES], *rest]))


def check_target(path: Path) -> None:
    """Raise UserError if a path cannot be a file to write: its folder is missing, or it is a folder."""
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file to write")


@dataclass(frozen=True)
class _Batch:
    """Indices and x of the readable images of a batch; index and fault of the other images."""

    indices: list[int]
    x: Tensor | None
    faults: list[tuple[int, str]] = field(default_factory=list)


def _read_batches(source: Source) -> Iterator[_Batch]:
    """Yield the images in batches; the next batches are read in advance."""

    def read(index: Tensor) -> _Batch:
        try:
            return _Batch(index.tolist(), source.load(index))
        except UnreadableImageError:
            return _read_one_by_one(source, index)

    return ahead(read, torch.arange(len(source)).split(BATCH_SIZE))


def _read_one_by_one(source: Source, index: Tensor) -> _Batch:
    """Read a batch image by image, because some of its images cannot be read."""
    images: dict[int, Tensor] = {}
    faults = []
    for position in index.tolist():
        try:
            images[position] = source.load(torch.tensor([position]))
        except UnreadableImageError as error:
            faults.append((position, error.reason))
    return _Batch([*images], torch.cat([*images.values()]) if images else None, faults)
