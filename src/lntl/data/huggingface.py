"""A Hugging Face data set on disk: saved with `save_to_disk`, Parquet shards, or folders of images; memory-mapped."""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from lntl.data.biases import Biases, ColumnName
from lntl.data.decoding import UnreadableImageError
from lntl.data.image_files import FileList, FileSettings, LabelledFiles
from lntl.data.labels import Column, as_text, categories
from lntl.data.rows import MAX_NAMES, ColumnSettings, Rows
from lntl.data.table import arrow_texts, check_header
from lntl.errors import UserError

__all__ = ["HuggingFace"]

log = logging.getLogger("lntl")

Part = Any  # a datasets.Dataset; the library is optional


class HuggingFace(LabelledFiles):
    """A data set that the library `datasets` reads from disk (pip install 'lntl[huggingface]'), never from a network.

    The splits are those of the data set. If it has none, or only train, they are drawn as for a table.
    """

    class Config(FileSettings, ColumnSettings):
        """Settings of `data`."""

        path: str = Field(
            min_length=1,
            description="Folder that `save_to_disk` wrote, folder of Parquet shards, a .parquet file, or folder of "
            "images as the library's imagefolder reads it.",
        )
        image: ColumnName = Field("image", description="Column of the images.")
        label: ColumnName = Field("label", description="Column of the label; names of a ClassLabel are kept.")
        bias: Biases = Field(
            description="Column of the bias; or a list of them, {column, bins} or {column, edges} for numbers, "
            "{from, bins} for a measure of the image; [] if the bias is not annotated.",
        )
        arrow_dir: str | None = Field(
            None,
            min_length=1,
            description="Folder to which Parquet shards are copied once as Arrow files, which can be memory-mapped; "
            "null: the cache of the library (HF_DATASETS_CACHE).",
        )

    def __init__(self, config: "HuggingFace.Config") -> None:
        path = Path(config.path)
        parts, notes = _read(path, config.arrow_dir)
        biases = [bias.column for bias in config.bias if bias.column is not None]
        names = [name for name in (config.label, config.split, config.group_id, *biases) if name is not None]
        for part in parts.values():
            check_header(path, part.column_names, (config.image, *names))
        with _user_errors(path):
            columns = {name: _column(name, parts, path, config.missing) for name in dict.fromkeys(names)}
            files = _images(config.image, parts, path)
        split = columns[config.split] if config.split is not None else _split_names(parts)
        rows = Rows(
            where=f"data set {path}",
            unit="row",
            number=np.array(_row_numbers(parts), dtype=object),
            label=columns[config.label],
            split=split,
            group_id=columns[config.group_id] if config.group_id is not None else None,
            columns=columns,
        )
        super().__init__(rows, files, rows.faults(config.biases), config, notes)


def is_data_set(path: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`, or holds Parquet shards."""
    return path.is_dir() and (_is_saved(path) or next(path.rglob("*.parquet"), None) is not None)


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def read_images(path: Path, column: str, arrow_dir: str | None = None) -> FileList:
    """Return the images of all splits of a data set; raises UserError if it cannot be read."""
    parts, notes = _read(path, arrow_dir)
    for note in notes:
        log.warning("%s: %s", path, note)
    for part in parts.values():
        check_header(path, part.column_names, (column,))
    with _user_errors(path):
        return _images(column, parts, path)


def _read(path: Path, arrow_dir: str | None) -> tuple[Mapping[str, Part], list[str]]:
    """Return the splits of the data set, memory-mapped, and notes about files that are left out.

    If it has no splits, all rows are the split train.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data.name: huggingface needs the library datasets ({error}); pip install 'lntl[huggingface]'"
        ) from error
    if not path.exists():
        raise UserError(f"{path}: there is no such data set; set data.path")
    notes: list[str] = []
    with _offline(), _user_errors(path):
        if _is_saved(path):
            loaded = datasets.load_from_disk(str(path))
        elif path.is_file():
            loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=arrow_dir)
        else:
            kind = "parquet" if next(path.rglob("*.parquet"), None) is not None else "imagefolder"
            notes = _check_files(path, kind, arrow_dir)
            loaded = datasets.load_dataset(kind, data_dir=str(path), cache_dir=arrow_dir)
    return (dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}), notes


_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.parquet")


def _check_files(path: Path, kind: str, arrow_dir: str | None) -> list[str]:
    """Return a note about the files that the library ignores; raises UserError if a Parquet shard is missing.

    If some names contain a split, such as train, the library ignores the files without one.
    """
    import datasets

    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file.relative_to(path))]
    if kind == "parquet":
        files = [file for file in files if file.suffix == ".parquet"]
        _check_shards(files)
    builder = datasets.load_dataset_builder(kind, data_dir=str(path), cache_dir=arrow_dir)
    used = {Path(name).resolve() for names in (builder.config.data_files or {}).values() for name in names}
    ignored = [str(file.relative_to(path)) for file in files if not _is_read(file, kind, used)]
    if not ignored:
        return []
    more = ", ..." if len(ignored) > MAX_NAMES else ""
    names = f"{', '.join(ignored[:MAX_NAMES])}{more}"
    return [f"the library datasets ignores {len(ignored)} of {len(files)} files: {names}"]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def _is_read(file: Path, kind: str, used: set[Path]) -> bool:
    """Return whether the library reads a file; in a folder of images it reads only images and metadata."""
    is_known = kind == "parquet" or file.stem == "metadata" or file.suffix.lower() in Image.registered_extensions()
    return is_known and file.resolve() in used


def _check_shards(files: Sequence[Path]) -> None:
    """Raise UserError if a file is missing whose number follows from the names, such as train-00000-of-00002."""
    present: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            present.setdefault((file.parent, match[1], match[3]), set()).add(int(match[2]))
    for (folder, name, total), numbers in present.items():
        if missing := sorted({*range(int(total))} - numbers):
            first = folder / f"{name}-{missing[0]:05d}-of-{total}.parquet"
            raise UserError(
                f"{first}: missing, with {len(missing)} of the {int(total)} files of {name}; copy them there, or "
                "rename the others to use only a part"
            )


@contextmanager
def _offline() -> Iterator[None]:
    """Let the library neither use the network nor draw progress bars within the block."""
    import datasets

    was_offline, bars_were_disabled = datasets.config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline
        if not bars_were_disabled:
            datasets.enable_progress_bars()


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Raise UserError instead of the exceptions that the library raises within the block."""
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    try:
        yield
    except (DatasetsError, ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise UserError(
            f"{path}: not a data set that the library datasets can read: {reason[:300]}; name a folder of "
            "`save_to_disk`, of Parquet shards or of images in data.path"
        ) from error


def _arrow_column(name: str, parts: Mapping[str, Part]) -> Any:
    """Return a column of all splits as one Arrow array, still memory-mapped."""
    import pyarrow as pa

    columns = [part.data.column(name) for part in parts.values()]
    kind = columns[0].type
    cast_columns = [column if column.type == kind else column.cast(kind) for column in columns]
    return pa.chunked_array([chunk for column in cast_columns for chunk in column.chunks], kind)


def _column(name: str, parts: Mapping[str, Part], path: Path, missing: Sequence[str]) -> Column:
    """Return a column of all splits; the numbers of a ClassLabel may have other names in each split."""
    from pyarrow import types

    texts: list[str] = []
    codes: list[NDArray[np.int64]] = []
    for part in parts.values():
        column = part.data.column(name)
        if types.is_nested(column.type):
            raise UserError(f"{path}: {name} holds {column.type}; a column must hold texts or numbers")
        classes = getattr(part.features[name], "names", None)  # names of a ClassLabel
        part_texts, code = arrow_texts(column, as_text if classes is None else partial(_class_name, names=classes))
        codes.append(code + len(texts))
        texts += part_texts
    return categories(name, texts, np.concatenate(codes), missing)


def _class_name(code: object, names: Sequence[str]) -> str:
    """Return the name of a ClassLabel's number; -1 stands for an unknown class."""
    if not isinstance(code, int) or code < 0:
        return ""
    return names[code] if code < len(names) else as_text(code)


def _split_names(parts: Mapping[str, Part]) -> Column | None:
    """Return the split of each row; None if there is only one split."""
    if len(parts) == 1:
        return None
    return categories("split", list(parts), np.arange(len(parts)).repeat([len(part) for part in parts.values()]))


def _row_numbers(parts: Mapping[str, Part]) -> list[str]:
    """Return the number of each row in its split, such as "17", or "17 of train" if there are several splits."""
    suffixes = {name: f" of {name}" if len(parts) > 1 else "" for name in parts}
    return [f"{number}{suffixes[name]}" for name, part in parts.items() for number in range(1, len(part) + 1)]


def _images(name: str, parts: Mapping[str, Part], path: Path) -> FileList:
    """Return the images of a column of bytes, of {bytes, path}, or of names of files in the folder."""
    from pyarrow import types

    column = _arrow_column(name, parts)
    if types.is_string(column.type) or types.is_large_string(column.type):
        return FileList(
            path if path.is_dir() else path.parent, [as_text(value).strip() for value in column.to_pylist()]
        )
    if types.is_struct(column.type) and {"bytes", "path"} <= {field.name for field in column.type}:
        content = [chunk.field("bytes").cast("binary") for chunk in column.chunks]  # of type null if all are missing
        paths = [chunk.field("path").cast("string") for chunk in column.chunks]
        if all(chunk.null_count == len(chunk) for chunk in content):  # a folder of images
            return FileList(Path(), [value or "" for chunk in paths for value in chunk.to_pylist()])
    elif types.is_binary(column.type) or types.is_large_binary(column.type):
        content, paths = column.chunks, [None] * len(column.chunks)
    else:
        raise UserError(f"{path}: {name} holds {column.type}; it must hold images, their contents, or names of files")
    has_image = chain.from_iterable(map(_has_image, column.chunks, content, paths))
    names = [
        f"row {number}" if has_content else ""
        for number, has_content in zip(_row_numbers(parts), has_image, strict=True)
    ]
    return FileList(Path(), names, MappedContents(content, paths))


def _has_image(image: Any, content: Any, paths: Any | None) -> list[bool]:
    """Return a mask of the rows of a chunk that have an image: the row is valid, and has bytes or a path."""
    import pyarrow.compute as pc

    has_content = content.is_valid()
    if paths is not None:
        has_content = pc.or_(has_content, pc.greater(pc.fill_null(pc.binary_length(paths), 0), 0))
    mask: list[bool] = pc.and_(image.is_valid(), has_content).to_pylist()
    return mask


class MappedContents(Sequence[bytes]):
    """Contents of image files in memory-mapped columns; a row is read on access.

    Args:
        content: Arrow arrays of bytes, one after another.
        paths: Arrow arrays of the same lengths: the file of each row without bytes. None for a chunk
            whose rows all have bytes.
    """

    def __init__(self, content: Sequence[Any], paths: Sequence[Any]) -> None:
        self._content, self._paths = content, paths
        self._ends = [*accumulate(len(chunk) for chunk in content)]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        chunk = bisect_right(self._ends, index)
        position = index - (self._ends[chunk - 1] if chunk else 0)
        content: bytes | None = self._content[chunk][position].as_py()
        if content is not None:
            return content
        paths = self._paths[chunk]
        path = None if paths is None else paths[position].as_py()
        if not path:
            return b""
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UnreadableImageError(Path(path), (error.strerror or str(error)).lower()) from error
