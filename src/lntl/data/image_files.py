"""Image files with labels: the base class of the data sets `table` and `folders`."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lntl.data.decoding import EncodedImage, ImageFile, suffixes
from lntl.data.eval_transform import FileTransform
from lntl.data.image_settings import ImageSettings
from lntl.data.images import ImageSource
from lntl.data.rows import NAMED, Faults, LabelSettings, Rows
from lntl.data.splits import LabelledDataset, LabelledSplit
from lntl.types import SPLITS, ImageSplit


class FileSettings(LabelSettings, ImageSettings):
    """Settings of image files with labels."""

    check: Literal["read", "header", "exist", "none"] = Field(
        "read",
        description="What is checked for every image file first: that it can be decoded (read), that its header can "
        "(header), that it exists (exist), or nothing (none).",
    )

    def without_opening_images(self) -> Self:
        """Return the settings that do not open the images, unless a bias is computed from them."""
        if self.bias_from_images or self.check not in ("read", "header"):
            return self
        return self.model_copy(update={"check": "exist"})


class _Selection(Sequence[bytes]):
    """Some of the items of a sequence, which are read on access."""

    def __init__(self, items: Sequence[bytes], index: Sequence[int]) -> None:
        self._items, self._index = items, index

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return _Selection(self._items, self._index[index])
        return self._items[self._index[index]]


class FileList(Sequence[ImageFile]):
    """Image files below a folder, or the contents of such files.

    Paths are made on access, so that a million of them stay small. names: as the user wrote them, relative to `root`.
    """

    def __init__(self, root: Path, names: Sequence[str], contents: Sequence[bytes] | None = None) -> None:
        self.root, self.names, self.contents = root, list(names), contents
        self._renamed: dict[int, str] = {}  # index of a file whose name on disk is another than its name in `names`

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ImageFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageFile]: ...
    def __getitem__(self, index: int | slice) -> ImageFile | list[ImageFile]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if self.contents is not None:
            return EncodedImage(self.names[index], self.contents[index])
        return self.root / self._renamed.get(index, self.names[index])

    def take(self, keep: NDArray[np.bool_]) -> "FileList":
        """Return the files where `keep` is true."""
        kept = np.flatnonzero(keep).tolist()
        contents = None if self.contents is None else _Selection(self.contents, kept)
        files = FileList(self.root, [self.names[index] for index in kept], contents)
        files._renamed = {new: self._renamed[old] for new, old in enumerate(kept) if old in self._renamed}
        return files

    def find(self) -> tuple[dict[int, str], list[str]]:
        """Look for every file; each folder is listed once.

        A name in another Unicode form, or without its suffix, counts as found if only one file matches.

        Returns:
            A hint for each missing file by index, and sentences about names that differ from the names on disk.
        """
        if self.contents is not None:
            return {}, []
        listed: dict[str, set[str]] = {}
        near: dict[str, dict[str, list[str]]] = {}
        missing: dict[int, str] = {}
        count: Counter[str] = Counter()
        for index, name in enumerate(self.names):
            folder, file = os.path.split(name)
            if folder not in listed:
                listed[folder] = _files_in(self.root / folder)
            if file in listed[folder]:
                continue
            if folder not in near:
                near[folder] = _by_near_name(listed[folder])
            candidates = near[folder].get(_canonical(file), []) if file else []
            if len(candidates) == 1:
                self._renamed[index] = os.path.join(folder, candidates[0])  # noqa: PTH118 - as the names are
                same = unicodedata.normalize("NFC", candidates[0]) == unicodedata.normalize("NFC", file)
                count["in another Unicode form" if same else f"with the suffix {Path(candidates[0]).suffix}"] += 1
            else:
                missing[index] = f" (it may be {' or '.join(candidates[:3])})" if candidates else ""
        return missing, [f"{n} files were found {how}" for how, n in count.items()]


def _files_in(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return set()


def _canonical(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _by_near_name(files: set[str]) -> dict[str, list[str]]:
    """Return the files by their names in Unicode form NFC, and image files also by these names without suffix."""
    near: dict[str, list[str]] = {}
    for file in sorted(files):
        near.setdefault(_canonical(file), []).append(file)
        if file.lower().endswith(suffixes()):
            near.setdefault(_canonical(os.path.splitext(file)[0]), []).append(file)  # noqa: PTH122 - a name, no path
    return near


@dataclass(frozen=True)
class FileSplit(LabelledSplit, ImageSplit):
    """A split of image files; with a seed its images are augmented, as a function of (seed, row)."""

    source: ImageSource
    seed: int | None = None

    @property
    def workers(self) -> int:
        """Number of threads that read ahead."""
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


class LabelledFiles(LabelledDataset):
    """A data set of image files with labels."""

    def __init__(
        self, rows: Rows, files: FileList, faults: Faults, settings: FileSettings, notes: Sequence[str] = ()
    ) -> None:
        """Check the files and build the splits.

        Args:
            rows: The labels.
            files: The image of each row.
            faults: Wrong rows so far; rows with a wrong image are added.
            settings: Settings of labels and images.
            notes: Sentences to add to `source`.
        """
        source, found = _checked(files, faults, settings)
        keep = faults.settle(settings.on_error)
        if not keep.all():
            rows, files = rows.take(keep), files.take(keep)
            source = _taken(source, files, keep)
        if settings.bias_from_images:
            source.choose_white(_given_train(rows))
        labels = self._label(rows, settings.biases, source.in_color(), source.shape, settings, faults)
        bright = source.choose_white(labels["train"].row.tolist())
        self._note([*notes, *found, *_depth_notes(source, files, bright)])
        self.splits = {name: FileSplit(**vars(split), source=source) for name, split in labels.items()}
        self.transform = FileTransform(source.settings)
        self._names = files.names
        self._root = "" if files.root == Path() or files.contents is not None else str(files.root)

    def row_name(self, row: int) -> str:
        """Return the file of an image."""
        return os.path.join(self._root, self._names[row])  # noqa: PTH118 - a Path is slow for a million rows


def _given_train(rows: Rows) -> list[int]:
    """Return the training rows according to the split column; all rows if the splits are drawn."""
    index = rows.given_splits()
    train: list[int] = np.flatnonzero(index == SPLITS.index("train")).tolist() if index is not None else []
    return train or list(range(len(rows.label.code)))


def _taken(source: ImageSource, files: FileList, keep: NDArray[np.bool_]) -> ImageSource:
    """Return the images of the files where `keep` is true, with their highest values so far."""
    taken = ImageSource(files, source.settings)
    new_index = np.cumsum(keep) - 1
    taken.highest = {int(new_index[old]): high for old, high in source.highest.items() if keep[old]}
    return taken


def _depth_notes(source: ImageSource, files: FileList, bright: list[int]) -> list[str]:
    """Return notes about the white value of images with more than 8 bits."""
    white = source.settings.white
    if white is None:
        return []
    notes = [
        f"images with more than 8 bits: values from 0 to {white} become black to white (set data.white to change this)"
    ]
    if bright:
        names = ", ".join(str(files[index]) for index in bright[:NAMED])
        more = ", ..." if len(bright) > NAMED else ""
        notes.append(f"{len(bright)} images are brighter than {white} and are clipped: {names}{more}")
    return notes


def _checked(files: FileList, faults: Faults, settings: FileSettings) -> tuple[ImageSource, list[str]]:
    """Return the images and notes about their names; adds missing and unreadable images to `faults`."""
    present = np.array([bool(name) for name in files.names], dtype=np.bool_)
    faults.add(np.flatnonzero(~present).tolist(), "image is empty")
    notes: list[str] = []
    if settings.check != "none":
        missing, notes = files.find()
        missing = {row: hint for row, hint in missing.items() if present[row]}
        present[[*missing]] = False
        faults.add(missing, "missing file", lambda row: f" {files[row]}{missing[row]}")
    source = ImageSource(files, settings)
    if settings.check in ("read", "header"):
        rows = np.flatnonzero(present)
        for row, reason in source.check(rows.tolist(), full=settings.check == "read"):
            name = "" if files.contents else f" {files[row]}"  # contents have no file name, only the name of their row
            faults.add([row], "unreadable image", lambda _, detail=f"{name}: {reason}": detail)  # type: ignore[misc]
    return source, notes
