"""Your own images, sorted into folders by split, label and bias: split/label/bias/*.jpg."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from lntl.data.biases import Biases, BiasSetting
from lntl.data.files import FileSettings, LabelledFiles, Paths
from lntl.data.labels import Column, categories
from lntl.data.rows import Rows
from lntl.errors import UserError

__all__ = ["Folders"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
Level = Literal["split", "label", "bias", "group_id"]


class Folders(LabelledFiles):
    """Image files whose folders tell split, label and bias."""

    class Config(FileSettings):
        """Settings of `data`."""

        root: str = Field(min_length=1, description="Folder of the first level.")
        levels: list[Level] = Field(
            ["split", "label", "bias"],
            description="What each level of folders tells, from the outside in; without split the splits are drawn. "
            "Files may lie in further folders below.",
        )
        bias: Biases = Field(
            [],
            description="Where no level tells the bias: {from, bins} for what an image shows by itself.",
        )

        @model_validator(mode="after")
        def _tells_all(self) -> Self:
            if len(set(self.levels)) < len(self.levels) or "label" not in self.levels:
                raise ValueError("a configuration whose levels hold label, and nothing twice")
            if ("bias" in self.levels) == bool(self.bias):
                raise ValueError("one that tells the bias once: by a level, or else by bias: {from, bins}")
            if any(bias.computed is None for bias in self.bias):
                raise ValueError("one whose bias has no column, as folders have none: use {from, bins}, or a table")
            return self

        @property
        def biases(self) -> Sequence[BiasSetting]:
            """The settings of each bias."""
            return self.bias

        def without_groups(self) -> Self:
            """Return the settings with the level `group_id` ignored."""
            return self.model_copy(update={"levels": ["" if level == "group_id" else level for level in self.levels]})

    def __init__(self, config: "Folders.Config") -> None:
        self.config = config
        root = Path(config.root)
        if not root.is_dir():
            raise UserError(f"{root}: there is no such folder; set data.root")
        names = sorted(image_files(root))
        if not names:
            raise UserError(f"{root}: no image file ({', '.join(SUFFIXES)}) lies in it; set data.root")
        parts = [Path(name).parts[:-1] for name in names]
        columns: dict[str, Column] = {
            level: _column(level, [_at(each, k) for each in parts]) for k, level in enumerate(config.levels)
        }
        number = np.array(names, dtype=object)
        rows = Rows(
            where=f"folders {root}",
            unit="file",
            number=number,
            label=columns["label"],
            split=columns.get("split"),
            group_id=columns.get("group_id"),
            columns=columns,
        )
        faults = rows.faults()
        shallow = [row for row, each in enumerate(parts) if len(each) < len(config.levels)]
        faults.add(shallow, f"does not lie in {'/'.join(config.levels)}/")
        bias = config.bias or [BiasSetting(column="bias")]
        super().__init__(rows, Paths(root, names), faults, bias, config)


def image_files(root: Path) -> list[str]:
    """Return the image files below the root, relative to it, links followed; hidden ones are left out.

    Raises UserError where a folder cannot be read.
    """
    return list(_below(root, "", frozenset()))


def _below(folder: Path, inside: str, above: frozenset[Path]) -> Iterator[str]:
    """Yield the image files of a folder; above: the folders around it, to which a link may lead back."""
    real = folder.resolve()
    if real in above:
        return
    for name, is_folder in _listed(folder):
        if is_folder:
            yield from _below(folder / name, f"{inside}{name}/", above | {real})
        elif name.lower().endswith(SUFFIXES):
            yield inside + name


def _listed(folder: Path) -> list[tuple[str, bool]]:
    """Return the names in a folder that are not hidden, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where}: cannot read it: {error.strerror}; mend it, or take it out of the folder") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; raises OSError for a link to nothing, unless it is named as an image."""
    if entry.is_symlink() and not entry.name.lower().endswith(SUFFIXES):
        return S_ISDIR(entry.stat().st_mode)
    return entry.is_dir()


def _at(parts: tuple[str, ...], level: int) -> str:
    return parts[level] if level < len(parts) else ""


def _column(name: str, texts: list[str]) -> Column:
    values, code = np.unique(np.array(texts, dtype=object), return_inverse=True)
    return categories(name, values.tolist(), code)
