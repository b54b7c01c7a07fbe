"""Results in several files: each shard of a benchmark writes its own beside the common one; reading merges them.

A worker of a Ray cluster has a file of its own, too, until its lines are in the common file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from lntl.benchmark.results import ResultLine, read_texts
from lntl.errors import UserError, shorten
from lntl.runs.files import write_text

Item = TypeVar("Item")
_SHARD, _WORKER = r"\d+-of-\d+", "worker-[0-9a-f]+"  # what stands between the stem and the suffix of the common file


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the runs of a plan, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that a text such as 2/3 names; raises UserError if it names none."""
        numbers = [int(part) for part in text.split("/")] if re.fullmatch(r"[0-9]{1,6}/[0-9]{1,6}", text) else [0, 0]
        if not 1 <= numbers[0] <= numbers[1]:
            raise UserError(f"--shard {shorten(text)}: write it as i/n with i from 1 to n, e.g. --shard 1/3")
        return cls(*numbers)

    def of(self, runs: Sequence[Item]) -> list[Item]:
        """Return the runs of this shard: every count-th one."""
        return list(runs[self.index - 1 :: self.count])

    def file(self, results: Path) -> Path:
        """Return the file that this shard writes."""
        return _beside(results, f"{self.index}-of-{self.count}")


def worker_file(results: Path, worker: str) -> Path:
    """Return the file that a worker writes; `worker` is a hexadecimal number."""
    return _beside(results, f"worker-{worker}")


def _beside(results: Path, part: str) -> Path:
    return results.with_name(f"{results.stem}-{part}{results.suffix}")


def _parts(results: Path, part: str) -> list[Path]:
    """Return the existing files of shards or workers, by name."""
    name = re.compile(f"{re.escape(results.stem)}-(?:{part}){re.escape(results.suffix)}")
    paths = results.parent.iterdir() if results.parent.is_dir() else []
    return sorted(path for path in paths if name.fullmatch(path.name))


def exist(results: Path) -> bool:
    """Return whether there are results, in the common file or in others."""
    return results.is_file() or bool(_parts(results, f"{_SHARD}|{_WORKER}"))


def read(results: Path) -> list[ResultLine]:
    """Return the lines of all files; raises UserError with file and number of a line that is not a result.

    The lines of the common file come first, then those of the other files, by file name. If several lines belong to one
    run and split, the first without an error is returned.
    """
    return [line for _, line in _merged(results)]


def _merged(results: Path) -> list[tuple[str, ResultLine]]:
    """Return each line that counts as text and parsed."""
    pairs = read_texts(results)
    for path in _parts(results, f"{_SHARD}|{_WORKER}"):
        for text, line in read_texts(path):
            same = [other for _, other in pairs if other.key == line.key]
            succeeded = any(not other.failed and other.split == line.split for other in same)
            if succeeded or (line.failed and same):
                continue
            pairs = [pair for pair in pairs if not (pair[1].failed and pair[1].key == line.key)]
            pairs.append((text, line))
    return pairs


def collect(results: Path) -> None:
    """Write the lines of all files into the common one, and remove those of workers; no worker may be running."""
    before, merged = read_texts(results), _merged(results)
    if merged != before:
        write_text(results, "".join(f"{text}\n" for text, _ in merged))
    for path in _parts(results, _WORKER):
        path.unlink()
