"""Image files with labels: the base class of the data sets `table` and `folders`."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lntl.data.decoding import WHITE, EncodedImage, ImageFile, suffixes
from lntl.data.eval_transform import FileTransform
from lntl.data.image_settings import ImageSettings
from lntl.data.images import ImageSource
from lntl.data.rows import MAX_NAMES, Faults, LabelSettings, Rows
from lntl.data.splits import LabelledDataset, LabelledSplit
from lntl.types import SPLITS, ImageSplit


class FileSettings(LabelSettings, ImageSettings):
    """Settings of image files with labels."""

    check: Literal["read", "header", "exist", "none"] = Field(
        "read",
        description="Check of every image file before training: `read` decodes the file, `header` reads its header, "
        "`exist` looks whether it exists, `none` checks nothing.",
    )

    def without_opening_images(self) -> Self:
        """Return the settings that do not open the images, unless a bias is computed from them."""
        if self.bias_from_images or self.check not in ("read", "header"):
            return self
        return self.model_copy(update={"check": "exist"})


class _Selection(Sequence[bytes]):
    """Selected items of a sequence; each item is read on access."""

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

    Paths are created on access, because a million Path objects take much memory. names: relative to `root`, as the user
    wrote them.
    """

    def __init__(self, root: Path, names: Sequence[str], contents: Sequence[bytes] | None = None) -> None:
        self.root, self.names, self.contents = root, list(names), contents
        self._disk_names: dict[int, str] = {}  # name on disk, by index, of files that have another name in `names`

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
        return self.root / self._disk_names.get(index, self.names[index])

    def take(self, keep: NDArray[np.bool_]) -> "FileList":
        """Return the files where `keep` is true."""
        indices = np.flatnonzero(keep).tolist()
        contents = None if self.contents is None else _Selection(self.contents, indices)
        files = FileList(self.root, [self.names[index] for index in indices], contents)
        files._disk_names = {new: self._disk_names[old] for new, old in enumerate(indices) if old in self._disk_names}
        return files

    def find(self) -> tuple[dict[int, str], list[str]]:
        """Look for every file; each folder is listed once.

        A name in another Unicode form, or without its suffix, counts as found if only one file matches.

        Returns:
            A hint for each missing file by index, and sentences about names that differ from the names on disk.
        """
        if self.contents is not None:
            return {}, []
        files_in_folder: dict[str, set[str]] = {}
        near_names: dict[str, dict[str, list[str]]] = {}
        hints: dict[int, str] = {}
        num_renamed: Counter[str] = Counter()
        for index, name in enumerate(self.names):
            folder, file = os.path.split(name)
            if folder not in files_in_folder:
                files_in_folder[folder] = _list_files(self.root / folder)
            if file in files_in_folder[folder]:
                continue
            if folder not in near_names:
                near_names[folder] = _group_by_near_name(files_in_folder[folder])
            candidates = near_names[folder].get(_to_nfc(file), []) if file else []
            if len(candidates) == 1:
                self._disk_names[index] = os.path.join(folder, candidates[0])  # noqa: PTH118 - a relative name, not a Path
                same_name = unicodedata.normalize("NFC", candidates[0]) == unicodedata.normalize("NFC", file)
                num_renamed[
                    "in another Unicode form" if same_name else f"with the suffix {Path(candidates[0]).suffix}"
                ] += 1
            else:
                hints[index] = f" (it may be {' or '.join(candidates[:3])})" if candidates else ""
        return hints, [f"{n} files were found {description}" for description, n in num_renamed.items()]


def _list_files(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return set()


def _to_nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _group_by_near_name(files: set[str]) -> dict[str, list[str]]:
    """Return the files grouped by name in Unicode form NFC; image files are also in a group by name without suffix."""
    near: dict[str, list[str]] = {}
    for file in sorted(files):
        near.setdefault(_to_nfc(file), []).append(file)
        if file.lower().endswith(suffixes()):
            near.setdefault(_to_nfc(os.path.splitext(file)[0]), []).append(file)  # noqa: PTH122 - a name, not a path
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
        source, name_notes = _check_files(files, faults, settings)
        keep = faults.valid_rows_or_raise(settings.on_error)
        if not keep.all():
            rows, files = rows.take(keep), files.take(keep)
            source = _select_images(source, files, keep)
        if settings.bias_from_images:
            source.choose_white(_train_rows(rows))
        labels = self._label(rows, settings.biases, source.in_color(), source.shape, settings, faults)
        clipped_images = source.choose_white(labels["train"].row.tolist())
        self._note([*notes, *name_notes, *_image_notes(source, files, clipped_images)])
        self.splits = {name: FileSplit(**vars(split), source=source) for name, split in labels.items()}
        self.transform = FileTransform(source.settings)
        self._names = files.names
        self._root = "" if files.root == Path() or files.contents is not None else str(files.root)

    def row_name(self, row: int) -> str:
        """Return the file of an image."""
        return os.path.join(self._root, self._names[row])  # noqa: PTH118 - a Path is slow for a million rows


def _train_rows(rows: Rows) -> list[int]:
    """Return the training rows according to the split column; all rows if the splits are drawn."""
    index = rows.column_splits()
    train: list[int] = np.flatnonzero(index == SPLITS.index("train")).tolist() if index is not None else []
    return train or list(range(len(rows.label.code)))


def _select_images(source: ImageSource, files: FileList, keep: NDArray[np.bool_]) -> ImageSource:
    """Return the images of the files where `keep` is true, with their highest values so far."""
    selected = ImageSource(files, source.settings)
    new_index = np.cumsum(keep) - 1
    selected.highest = {int(new_index[old]): value for old, value in source.highest.items() if keep[old]}
    selected.deep = [int(new_index[old]) for old in source.deep if keep[old]]
    selected.multiple = [int(new_index[old]) for old in source.multiple if keep[old]]
    return selected


def _image_notes(source: ImageSource, files: FileList, clipped_images: list[int]) -> Iterator[str]:
    """Yield notes about files with several images, and about the white value of images with more than 8 bits."""
    white = source.settings.white

    def join_names(indices: list[int]) -> str:
        names = ", ".join(str(files[index]) for index in indices[:MAX_NAMES])
        return f"{names}{', ...' if len(indices) > MAX_NAMES else ''}"

    if source.multiple:
        count, names = len(source.multiple), join_names(sorted(source.multiple))
        yield f"{count} files have several frames or pages, of which only the first is used: {names}"
    scale = f"values from 0 to {white or WHITE} become black to white (set data.white to change this)"
    if white is None and source.deep:
        names = join_names(sorted(source.deep))
        yield f"{len(source.deep)} images have more than 8 bits, but the training images have 8: {scale}: {names}"
    if white is not None:
        yield f"images with more than 8 bits: {scale}"
    if clipped_images:
        names = join_names(clipped_images)
        yield f"{len(clipped_images)} images are brighter than {white} and are clipped: {names}"


def _check_files(files: FileList, faults: Faults, settings: FileSettings) -> tuple[ImageSource, list[str]]:
    """Return the images and notes about their names; adds missing and unreadable images to `faults`."""
    is_present = np.array([bool(name) for name in files.names], dtype=np.bool_)
    faults.add(np.flatnonzero(~is_present).tolist(), "image is empty")
    notes: list[str] = []
    if settings.check != "none":
        missing, notes = files.find()
        missing = {row: hint for row, hint in missing.items() if is_present[row]}
        is_present[[*missing]] = False
        faults.add(missing, "missing file", lambda row: f" {files[row]}{missing[row]}")
    source = ImageSource(files, settings)
    if settings.check in ("read", "header"):
        rows = np.flatnonzero(is_present)
        for row, reason in source.check(rows.tolist(), full=settings.check == "read"):
            # Contents have no file name; the message has the name of their row.
            name = "" if files.contents else f" {files[row]}"
            faults.add([row], "unreadable image", lambda _, detail=f"{name}: {reason}": detail)  # type: ignore[misc]
    return source, notes
