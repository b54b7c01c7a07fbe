"""Unpack the official Colored MNIST files from a zip or tar archive; check them before they get their final names.

Usage: python scripts/unpack_archive.py ARCHIVE SCRATCH TARGET     (called by scripts/download_dataset.sh)

SCRATCH is an empty folder on the file system of TARGET. Exit code 3 means that the archive is damaged or lacks files.
Exit code 1 means that something else failed (for example, the disk is full).
"""

import lzma
import re
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

NAME = re.compile(r"mnist_10color_jitter_var_0\.\d{3}\.npy")
MIN_SIZE = 100_000_000  # bytes; the images alone are 70,000 x 28 x 28 x 3 = 164,640,000
ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
DAMAGED = 3  # exit code for an archive that is damaged or lacks files


def iterate_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (file name, size in bytes, content) of each plain file in the archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zip_file:
            for info in zip_file.infolist():
                with zip_file.open(info) as content:
                    yield PurePosixPath(info.filename).name, info.file_size, content
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar_file:
            for member in tar_file:
                file = tar_file.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield PurePosixPath(member.name).name, member.size, file
    else:
        with archive.open("rb") as stream:
            raise EOFError(f"not a whole zip or tar archive; it starts with {stream.read(40)!r}")


def unpack(archive: Path, scratch: Path, target: Path) -> None:
    """Unpack the files that `target` lacks; move them there only after the whole archive was read without an error."""
    count = 0
    for name, size, content in iterate_members(archive):
        if not NAME.fullmatch(name):
            continue
        count += 1
        if (target / name).exists():
            print(f"kept {name}: already there", flush=True)
            continue
        if size < MIN_SIZE:
            raise EOFError(f"{name} has {size:,} bytes, too few for 70,000 images")
        print(f"unpacking {name} ({size / 1e6:.0f} MB)", flush=True)
        with (scratch / name).open("wb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
    if not count:
        raise EOFError("no file in it is named mnist_10color_jitter_var_X.XXX.npy")
    for path in sorted(scratch.iterdir()):
        path.replace(target / path.name)


def main(archive: Path, scratch: Path, target: Path) -> int:
    """Unpack the archive; print one line if something went wrong."""
    try:
        unpack(archive, scratch, target)
    except ARCHIVE_ERRORS as error:
        print(f"{archive.name}: {error}", file=sys.stderr)
        return DAMAGED
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    raise SystemExit(main(*map(Path, sys.argv[1:])))
