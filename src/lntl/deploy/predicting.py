"""Images through a trained classifier, in batches, into a table of predictions."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from lntl.data.decoding import UnreadableImageError
from lntl.data.given import Source
from lntl.data.loader import ahead
from lntl.deploy.inputs import Inputs
from lntl.deploy.loading import AT_ONCE, Classifier
from lntl.errors import UserError
from lntl.runs.files import write_atomic

MOST_TOLD = 10  # unreadable images that an error names


@dataclass
class Prediction:
    """A pass of a classifier over images: what is done with those that cannot be read, and what came of it."""

    classifier: Classifier
    given: Inputs
    on_error: Literal["stop", "skip"] = "stop"
    tell: Callable[[int], None] = lambda count: None  # called with the number of images after each batch
    places: list[int] = field(default_factory=list)  # of the images that were predicted
    unreadable: list[str] = field(default_factory=list)  # name and fault of those that cannot be read

    def write(self, out: Path, features: Path | None = None) -> None:
        """Write path, prediction and probabilities of each image to the CSV file `out`, z to the .npz file `features`.

        Each is whole or not there; memory does not grow with the images. Raises UserError, with nothing written, with
        the names of the images that cannot be read, unless they are skipped, and where none can be.
        """
        for path in (out, *([features] if features else [])):
            check_target(path)
        if features and features.resolve() == out.resolve():
            raise UserError(f"{out}: is to hold the predictions and the features; name a file for each")
        source = self.classifier.transform.source(self.given.images)
        with tempfile.TemporaryFile() as kept:
            shape: list[int] = []

            def keep(z: Tensor) -> None:
                if features:
                    kept.write(z.float().cpu().contiguous().numpy().tobytes())
                    shape[:] = z.shape[1:]

            write_atomic(out, lambda file: self._write(file, source, keep))
            if features:
                kept.flush()
                z = np.memmap(kept, np.float32, mode="r", shape=(len(self.places), *shape))
                names = np.array([self.given.names[place] for place in self.places])
                write_atomic(features, lambda file: np.savez(file, path=names, features=z))

    def _write(self, file: IO[bytes], source: Source, keep: Callable[[Tensor], None]) -> None:
        classes = self.classifier.class_names
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")  # as names of files are
        try:
            table = csv.writer(text, lineterminator="\n")
            table.writerow(["path", "prediction", *(f"p_{name}" for name in classes)])
            for places, probabilities in self._batches(source, keep):
                rows = zip(places, probabilities.argmax(dim=1).tolist(), probabilities.tolist(), strict=True)
                for place, best, row in rows:
                    table.writerow([self.given.names[place], classes[best], *(f"{value:.7g}" for value in row)])
            self._check()
        finally:
            text.detach()

    @torch.inference_mode()
    def _batches(self, source: Source, keep: Callable[[Tensor], None]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield places and probabilities (N, classes) of the images of a batch that can be read."""
        f, g = self.classifier.f, self.classifier.g
        device = next(self.classifier.parameters()).device
        for read in _read(source):
            self.unreadable += [f"{self.given.names[place]}: {reason}" for place, reason in read.faults]
            if read.x is not None and not (self.unreadable and self.on_error == "stop"):
                z = f(read.x.to(device))
                keep(z)
                self.places += read.places
                yield read.places, g(z).float().softmax(dim=1).cpu()
            self.tell(len(read.places) + len(read.faults))

    def _check(self) -> None:
        """Raise UserError where images cannot be read, and are not to be skipped or are all there is."""
        if not self.unreadable or (self.on_error == "skip" and self.places):
            return
        faults, remedy = self.unreadable, "mend them, or leave them out with --on-error skip"
        head = f"{len(faults)} of {len(self.given.names)} images cannot be read, so nothing is written; {remedy}"
        more = [f"and {len(faults) - MOST_TOLD} more"] if len(faults) > MOST_TOLD else []
        raise UserError("\n  ".join([head, *faults[:MOST_TOLD], *more]))


def check_target(path: Path) -> None:
    """Raise UserError where no file can be written to a path, for want of a folder or because it is one."""
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file to write")


@dataclass(frozen=True)
class _Read:
    """Of a batch the places and x of the images that can be read, and place and fault of the others."""

    places: list[int]
    x: Tensor | None
    faults: Sequence[tuple[int, str]] = ()


def _read(source: Source) -> Iterator[_Read]:
    """Yield the images in batches, read ahead."""

    def read(index: Tensor) -> _Read:
        try:
            return _Read(index.tolist(), source.load(index))
        except UnreadableImageError:
            return _one_by_one(source, index)

    return ahead(read, torch.arange(len(source)).split(AT_ONCE))


def _one_by_one(source: Source, index: Tensor) -> _Read:
    found: dict[int, Tensor] = {}
    faults = []
    for place in index.tolist():
        try:
            found[place] = source.load(torch.tensor([place]))
        except UnreadableImageError as error:
            faults.append((place, error.reason))
    return _Read([*found], torch.cat([*found.values()]) if found else None, faults)
