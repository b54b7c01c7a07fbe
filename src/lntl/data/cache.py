"""Caches of decoded images, in memory or on disk, so that each image is decoded once."""

import hashlib
import math
import os
import re
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from lntl.data.decoding import BrightCallback, EncodedImage, ImageFile, UnreadableImageError, decode
from lntl.data.image_settings import ImageSettings
from lntl.errors import UserError

Pixels = NDArray[np.uint8]  # one image (side, side, 3)
CHECKSUM_BYTES = 4  # length of the CRC-32 before the pixels in a file of the cache
# Names of the folders and of the files in the cache.
_FOLDER_NAME, _FILE_NAME = re.compile("[0-9a-f]{2}"), re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32}\.part)?")


class NoCache:
    """Image files that are decoded at every call; several threads may call it.

    `white` and `on_bright` are arguments of `decode`.
    """

    def __init__(
        self, paths: Sequence[ImageFile], settings: ImageSettings, on_bright: BrightCallback | None = None
    ) -> None:
        self.paths, self.side, self.fit, self.white = paths, settings.stored_side, settings.fit, settings.white
        self.on_bright = on_bright

    def __call__(self, position: int) -> Pixels:
        """Return an image as (side, side, 3) uint8."""
        return decode(self.paths[position], self.side, self.fit, self.white, self.on_bright)


class MemoryCache(NoCache):
    """Cache of all images in one array; each is decoded once."""

    def __init__(
        self, paths: Sequence[ImageFile], settings: ImageSettings, on_bright: BrightCallback | None = None
    ) -> None:
        super().__init__(paths, settings, on_bright)
        shape = (len(paths), self.side, self.side, 3)
        needed, available = np.prod(shape, dtype=np.int64), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > available:
            raise UserError(
                f"data.cache: {shape[0]} images of {shape[1]} x {shape[2]} pixels need {needed / 2**30:.1f} GiB of "
                f"memory, and this machine has {available / 2**30:.1f}; use cache: disk, or a smaller size"
            )
        self._pixels: Pixels = np.empty(shape, np.uint8)  # the system allocates memory when images are written
        self._is_decoded = np.zeros(shape[0], bool)

    def __call__(self, position: int) -> Pixels:
        """Return an image as (side, side, 3) uint8."""
        if not self._is_decoded[position]:
            self._pixels[position] = super().__call__(position)
            self._is_decoded[position] = True  # set after the pixels, because other threads may read it
        image: Pixels = self._pixels[position]
        return image


class DiskCache(NoCache):
    """Cache with one file in `cache_dir` for each image.

    The name of the file is a digest of the image's path, size and modification time, of side, fit and white, and of
    Pillow's version, so that a changed image is decoded again. A file is written under a temporary name and renamed,
    and its checksum is verified, so that several processes can share the folder.
    """

    def __init__(
        self, paths: Sequence[ImageFile], settings: ImageSettings, on_bright: BrightCallback | None = None
    ) -> None:
        super().__init__(paths, settings, on_bright)
        self._folder, self._shape = Path(settings.cache_dir), (self.side, self.side, 3)

    def __call__(self, position: int) -> Pixels:
        """Return an image as (side, side, 3) uint8."""
        entry = self.entry(position)
        if (cached := self._read(entry)) is not None:
            return cached
        image = super().__call__(position)
        try:
            _write(entry, _with_checksum(image.tobytes()))
        except FileNotFoundError:
            pass  # the cache was cleared at this moment; the image is cached next time
        except OSError as error:
            raise UserError(
                f"{entry.parent}: cannot write the image cache: {error.strerror}; name another folder with "
                "data.cache_dir, or use cache: none"
            ) from error
        return image

    def entry(self, position: int) -> Path:
        """Return the cache file of an image, which may not exist."""
        key = (*_identity(self.paths[position]), self.side, self.fit, PIL.__version__)
        key += () if self.white is None else (self.white,)
        name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
        return self._folder / name[:2] / name

    def _read(self, entry: Path) -> Pixels | None:
        try:
            content = entry.read_bytes()
        except OSError:
            return None
        pixels = content[CHECKSUM_BYTES:]
        if len(pixels) != math.prod(self._shape) or _with_checksum(pixels) != content:
            return None  # the file is damaged, so the image is decoded again
        return np.frombuffer(pixels, np.uint8).reshape(self._shape)


def _identity(path: ImageFile) -> tuple[object, ...]:
    """Return a key that identifies the content of an image file."""
    if isinstance(path, EncodedImage):
        return (hashlib.blake2b(path.content, digest_size=16).hexdigest(),)
    try:
        status = os.stat(path)  # noqa: PTH116 - called for every image of every epoch
    except OSError as error:
        raise UnreadableImageError(path, (error.strerror or str(error)).lower()) from error
    return (os.path.abspath(path), status.st_size, status.st_mtime_ns)  # noqa: PTH100 - links stay as they are


def _with_checksum(pixels: bytes) -> bytes:
    """Return the checksum of the pixels, followed by the pixels."""
    return zlib.crc32(pixels).to_bytes(CHECKSUM_BYTES, "little") + pixels


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically: under a unique temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def clear(folder: Path) -> tuple[int, int]:
    """Remove the files that `DiskCache` wrote to a folder, and nothing else; return their number and their bytes.

    Runs may use the folder meanwhile: they decode the removed images again.
    """
    files = size = 0
    for subfolder in folder.iterdir():
        if subfolder.is_dir() and _FOLDER_NAME.fullmatch(subfolder.name):
            for entry in subfolder.iterdir():
                if _FILE_NAME.fullmatch(entry.name):
                    size += entry.stat().st_size
                    entry.unlink()
                    files += 1
            _remove_if_empty(subfolder)
    _remove_if_empty(folder)
    return files, size


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # the folder is not empty
        folder.rmdir()


CACHES = {"none": NoCache, "memory": MemoryCache, "disk": DiskCache}  # classes by `ImageSettings.cache`
