"""Decoded images that are kept, in memory or on disk: later epochs decode nothing."""

import hashlib
import math
import os
import re
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from numpy.typing import NDArray

from lntl.data.decoding import UnreadableImageError, decode
from lntl.data.image_settings import ImageSettings
from lntl.errors import UserError

Pixels = NDArray[np.uint8]  # one image (side, side, 3)
CHECKSUM = 4  # bytes of CRC-32 before the pixels in a file of the cache
_INNER, _ENTRY = re.compile("[0-9a-f]{2}"), re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}\.part)?")  # names in the cache


class Store(Protocol):
    """Answers `store(i)` with image i as (side, side, 3) uint8; any number of threads may ask at once."""

    def __call__(self, position: int) -> Pixels: ...


class Files:
    """Image files, decoded whenever they are asked for."""

    def __init__(self, paths: Sequence[Path], settings: ImageSettings) -> None:
        self.paths, self.side, self.fit = paths, settings.stored, settings.fit

    def __call__(self, position: int) -> Pixels:
        return decode(self.paths[position], self.side, self.fit)


class InMemory:
    """Keeps every image in one array; each is decoded once."""

    def __init__(self, files: Files) -> None:
        self._files = files
        shape = (len(files.paths), files.side, files.side, 3)
        needed, there = np.prod(shape, dtype=np.int64), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise UserError(
                f"data.cache: {shape[0]} images of {shape[1]} x {shape[2]} pixels need {needed / 2**30:.1f} GiB of "
                f"memory, and this machine has {there / 2**30:.1f}; use cache: disk, or a smaller size"
            )
        self._pixels: Pixels = np.empty(shape, np.uint8)  # memory is taken as images come in
        self._known = np.zeros(shape[0], bool)

    def __call__(self, position: int) -> Pixels:
        if not self._known[position]:
            self._pixels[position] = self._files(position)
            self._known[position] = True  # after the pixels: another thread may look
        image: Pixels = self._pixels[position]
        return image


class OnDisk:
    """Keeps each image in a file of `folder`, named by what decoding depends on.

    The name is a digest of path, size and time of change of the file, side, fit, and Pillow's version, so an image that
    was changed is decoded anew. A file is written under a name of its own and renamed, and its checksum is verified, so
    that processes may share the folder.
    """

    def __init__(self, files: Files, folder: Path) -> None:
        self._files, self._folder = files, folder
        self._shape = (files.side, files.side, 3)

    def __call__(self, position: int) -> Pixels:
        entry = self.entry(position)
        if (kept := self._read(entry)) is not None:
            return kept
        image = self._files(position)
        try:
            _write(entry, _sealed(image.tobytes()))
        except FileNotFoundError:
            pass  # the cache was cleared in this moment; the image is kept the next time
        except OSError as error:
            raise UserError(
                f"{entry.parent}: cannot write the image cache: {error.strerror}; name another folder with "
                "data.cache_dir, or use cache: none"
            ) from error
        return image

    def entry(self, position: int) -> Path:
        """Return the file that keeps an image, whether it is there or not."""
        path = self._files.paths[position]
        try:
            found = os.stat(path)  # noqa: PTH116 - asked for every image of every epoch
        except OSError as error:
            raise UnreadableImageError(path, (error.strerror or str(error)).lower()) from error
        facts = (os.path.abspath(path), found.st_size, found.st_mtime_ns)  # noqa: PTH100 - links stay as they are
        made = (self._files.side, self._files.fit, PIL.__version__)
        name = hashlib.blake2b(repr(facts + made).encode(), digest_size=16).hexdigest()
        return self._folder / name[:2] / name

    def _read(self, entry: Path) -> Pixels | None:
        try:
            content = entry.read_bytes()
        except OSError:
            return None
        pixels = content[CHECKSUM:]
        if len(pixels) != math.prod(self._shape) or _sealed(pixels) != content:
            return None  # half of it was written when a disk failed: decoded anew
        return np.frombuffer(pixels, np.uint8).reshape(self._shape)


def _sealed(pixels: bytes) -> bytes:
    """Return the pixels behind their checksum."""
    return zlib.crc32(pixels).to_bytes(CHECKSUM, "little") + pixels


def _write(path: Path, content: bytes) -> None:
    """Write a file so that nobody sees half of it: a temporary name no other process has, then the right one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def clear(folder: Path) -> tuple[int, int]:
    """Remove what `OnDisk` kept in a folder, and nothing else; return how many files and bytes that were.

    Safe while runs use the folder: they decode anew what is gone.
    """
    files = size = 0
    for inner in folder.iterdir():
        if inner.is_dir() and _INNER.fullmatch(inner.name):
            for entry in inner.iterdir():
                if _ENTRY.fullmatch(entry.name):
                    size += entry.stat().st_size
                    entry.unlink()
                    files += 1
            _remove_empty(inner)
    _remove_empty(folder)
    return files, size


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds something
        folder.rmdir()


def store(paths: Sequence[Path], settings: ImageSettings) -> Store:
    """Return where the images come from, as `cache` says."""
    files = Files(paths, settings)
    if settings.cache == "memory":
        return InMemory(files)
    return OnDisk(files, Path(settings.cache_dir)) if settings.cache == "disk" else files
