"""Your own images, sorted into folders by split, label and bias: split/label/bias/*.jpg."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from lntl.data.biases import Biases, BiasSetting
from lntl.data.decoding import suffixes
from lntl.data.image_files import FileList, FileSettings, LabelledFiles
from lntl.data.labels import Column, categories
from lntl.data.rows import Rows
from lntl.errors import UserError
from lntl.plugins import conflict

__all__ = ["Folders"]

Level = Literal["split", "label", "bias", "group_id"]


class Folders(LabelledFiles):
    """Image files whose folders name split, label and bias."""

    class Config(FileSettings):
        """Settings of `data`."""

        root: str = Field(min_length=1, description="Folder that contains the folders of the first level.")
        levels: list[Level] = Field(
            ["split", "label", "bias"],
            description="Meaning of the folder names at each level, outermost first; without split the splits are "
            "drawn. Files may also lie in deeper folders.",
        )
        bias: Biases = Field(
            [],
            description="If no level names the bias: {from, bins} for a measure of the image, or [] if the bias is "
            "not annotated.",
        )

        @property
        def biases(self) -> Sequence[BiasSetting]:
            """The settings of each bias."""
            return [BiasSetting(column="bias")] if "bias" in self.levels else self.bias

        def without_groups(self) -> Self:
            """Return the settings with the level `group_id` ignored."""
            return self.model_copy(update={"levels": ["" if level == "group_id" else level for level in self.levels]})

        @model_validator(mode="after")
        def _check(self) -> Self:
            if len(set(self.levels)) < len(self.levels) or "label" not in self.levels:
                raise conflict("levels must contain label, and name each level once")
            if "bias" in self.levels and self.bias:
                raise conflict("levels and bias both name a bias; leave out one of them")
            if any(bias.computed is None for bias in self.bias):
                raise conflict("bias must be {from, bins}, because folders have no columns; use a table for a column")
            return self

    def __init__(self, config: "Folders.Config") -> None:
        root = Path(config.root)
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; set data.root")
        files = image_files(root)
        if not files.names:
            raise UserError(f"{root}: it contains no image file ({', '.join(suffixes())}){files.hint}; set data.root")
        names = sorted(files.names)
        folders = [Path(name).parts[:-1] for name in names]
        columns: dict[str, Column] = {
            level: _column(level, [_folder_name(path_folders, k) for path_folders in folders])
            for k, level in enumerate(config.levels)
        }
        rows = Rows(
            where=f"folders {root}",
            unit="file",
            number=np.array(names, dtype=object),
            label=columns["label"],
            split=columns.get("split"),
            group_id=columns.get("group_id"),
            columns=columns,
        )
        faults = rows.faults(config.biases)
        shallow_rows = [row for row, path_folders in enumerate(folders) if len(path_folders) < len(config.levels)]
        faults.add(shallow_rows, f"does not lie in {'/'.join(config.levels)}/")
        super().__init__(rows, FileList(root, names), faults, config, [files.note] if files.note else [])


class FoundFiles(NamedTuple):
    """Image files below a folder, relative to it, and the number of other files by suffix."""

    names: list[str]
    ignored: Counter[str]

    @property
    def note(self) -> str:
        """A sentence about the ignored files, empty if there are none."""
        if not self.ignored:
            return ""
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.ignored.items()))
        return f"{self.ignored.total()} files are ignored, because they are hidden or not images: {kinds}"

    @property
    def hint(self) -> str:
        """The note as a clause at the end of an error message."""
        return f"; {self.note}" if self.note else ""


def image_files(root: Path) -> FoundFiles:
    """Return the files below a folder that have the suffix of an image; links are followed, hidden files are ignored.

    Raises UserError if a folder cannot be read.
    """
    names: list[str] = []
    ignored: Counter[str] = Counter()
    for name in _walk(root, "", frozenset()):
        file = name.rpartition("/")[2]
        if file.startswith("."):
            ignored["hidden"] += 1
        elif file.lower().endswith(suffixes()):
            names.append(name)
        else:
            ignored[os.path.splitext(file)[1].lower() or "without suffix"] += 1  # noqa: PTH122 - a name, not a path
    return FoundFiles(names, ignored)


def _walk(folder: Path, prefix: str, parents: frozenset[Path]) -> Iterator[str]:
    """Yield the files below a folder, each with `prefix` before its name; a link to one of its `parents` is ignored."""
    resolved = folder.resolve()
    if resolved in parents:
        return
    for name, is_folder in _list_entries(folder):
        if not is_folder:
            yield prefix + name
        elif not name.startswith("."):
            yield from _walk(folder / name, f"{prefix}{name}/", parents | {resolved})


def _list_entries(folder: Path) -> list[tuple[str, bool]]:
    """Return the names in a folder, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries]
    except OSError as error:
        where = error.filename or folder
        raise UserError(
            f"{where}: cannot read this file or folder: {error.strerror}; repair it, or move it out of {folder}"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; raises OSError for a broken link, except to an image or a hidden file."""
    if entry.is_symlink() and not entry.name.lower().endswith(suffixes()) and not entry.name.startswith("."):
        return S_ISDIR(entry.stat().st_mode)
    return entry.is_dir()


def _folder_name(folders: tuple[str, ...], level: int) -> str:
    return folders[level] if level < len(folders) else ""


def _column(name: str, texts: list[str]) -> Column:
    values, code = np.unique(np.array(texts, dtype=object), return_inverse=True)
    return categories(name, values.tolist(), code)
