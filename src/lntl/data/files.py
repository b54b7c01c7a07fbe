"""Image files with labels: what `table` and `folders` have in common."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lntl.data.biases import check_numbers
from lntl.data.eval_transform import FileTransform
from lntl.data.faults import Faults
from lntl.data.images import ImageSettings, ImageSource
from lntl.data.labelled import Labelled, assemble
from lntl.data.rows import LabelSettings, Rows
from lntl.types import Dataset, ImageSplit


class FileSettings(LabelSettings, ImageSettings):
    """Settings of image files with labels."""

    check: Literal["read", "header", "exist", "none"] = Field(
        "read",
        description="What is asked of every image file first: that all of it can be read, that its header can, that "
        "it is there, or nothing.",
    )

    def unread(self) -> Self:
        """Return the settings without a look into the images, unless a bias is computed from them."""
        if self.bias_from_images or self.check not in ("read", "header"):
            return self
        return self.model_copy(update={"check": "exist"})


class Paths(Sequence[Path]):
    """Names of files below a folder as paths, made when they are asked for: a million of them stay small."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> "Paths": ...
    def __getitem__(self, place: int | slice) -> "Path | Paths":
        return Paths(self.root, self.names[place]) if isinstance(place, slice) else self.root / self.names[place]

    def take(self, keep: NDArray[np.bool_]) -> "Paths":
        """Return the paths kept."""
        return Paths(self.root, [self.names[place] for place in np.flatnonzero(keep).tolist()])

    def missing(self) -> list[int]:
        """Return the places of the names that are no file; each folder is listed once."""
        found: dict[str, set[str]] = {}
        places = []
        for place, name in enumerate(self.names):
            folder, file = os.path.split(name)
            if folder not in found:
                found[folder] = _files(self.root / folder)
            if file not in found[folder]:
                places.append(place)
        return places


def _files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return set()


@dataclass(frozen=True)
class FileSplit(Labelled, ImageSplit):
    """A split whose images lie in files; with a seed they are augmented, as a function of (seed, row)."""

    source: ImageSource
    seed: int | None = None

    @property
    def workers(self) -> int:
        """Threads that read ahead."""
        return self.source.workers

    def x(self, index: Tensor) -> Tensor:
        """Return the images at `index`, normalised, float (N, C, H, W)."""
        return self.source.load(self.row[index].cpu(), self.seed).to(self.y.device)

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W), not augmented."""
        return self.source.pixels(self.row[index.to(self.row.device)].cpu())

    def augmented(self, seed: int) -> Self:
        """Return the split with the augmentation of a seed."""
        return replace(self, seed=seed)


class LabelledFiles(Dataset):
    """Image files with labels: their splits, and what is to be told of them."""

    def __init__(self, rows: Rows, paths: Paths, faults: Faults, bias: Sequence[Any], settings: FileSettings) -> None:
        """faults: what was found wrong with rows so far; bias: the settings of each bias."""
        check_numbers(bias, rows.columns, faults)
        source = _checked(paths, faults, settings)
        keep = faults.settle(settings.on_error)
        if not keep.all():
            rows, paths = rows.take(keep), paths.take(keep)
            source = ImageSource(paths, settings)
        labels = assemble(rows, bias, source, source.shape, settings)
        self.spec, self.val_note = labels.spec, labels.val_note
        self.label_kind, self.bias_kind = labels.label_kind, labels.bias_kind
        self.splits = {name: FileSplit(**vars(split), source=source) for name, split in labels.splits.items()}
        self.transform = FileTransform(settings)
        self.skipped_rows = faults.lines
        left_out = [f"{len(self.skipped_rows)} rows are left out, for they are wrong"] if self.skipped_rows else []
        self.notes = [*labels.notes, *left_out]
        self.source = "; ".join([f"{rows.where}: {labels.told}", *self.notes])
        self._names, self._root = paths.names, "" if paths.root == Path() else str(paths.root)

    def row_name(self, row: int) -> str:
        """Return the file of an image."""
        return os.path.join(self._root, self._names[row])  # noqa: PTH118 - a Path is slow for a million rows


def _checked(paths: Paths, faults: Faults, settings: FileSettings) -> ImageSource:
    """Return the images that are there; notes the rows whose image is not, or cannot be read."""
    there = np.array([bool(name) for name in paths.names], dtype=np.bool_)
    faults.add(np.flatnonzero(~there).tolist(), "image is empty")
    if settings.check != "none":
        absent = [place for place in paths.missing() if there[place]]
        there[absent] = False
        faults.add(absent, "missing file", lambda row: f" {paths[row]}")
    source = ImageSource(paths if there.all() else paths.take(there), settings)
    if settings.check in ("read", "header"):
        places = np.flatnonzero(there)
        for place, what in source.check(full=settings.check == "read"):
            row = int(places[place])
            faults.add([row], "unreadable image", lambda row, what=what: f" {paths[row]}: {what}")  # type: ignore[misc]
    return source
