"""Results in several files: each shard of a benchmark writes a file beside the common one; reading merges them.

A worker of a Ray cluster also writes a file of its own, which is removed when its lines are in the common file.
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
# Patterns of the text that stands between the stem and the suffix of the common file.
_SHARD_PATTERN, _WORKER_PATTERN = r"\d+-of-\d+", "worker-[0-9a-f]+"


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of the `count` parts into which the runs of a plan are divided."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard for a text such as 2/3; raises UserError if the text is invalid."""
        numbers = [int(part) for part in text.split("/")] if re.fullmatch(r"[0-9]{1,6}/[0-9]{1,6}", text) else [0, 0]
        if not 1 <= numbers[0] <= numbers[1]:
            raise UserError(f"--shard {shorten(text)}: write it as i/n with i from 1 to n, e.g. --shard 1/3")
        return cls(*numbers)

    def select(self, runs: Sequence[Item]) -> list[Item]:
        """Return the runs of this shard: every count-th one."""
        return list(runs[self.index - 1 :: self.count])

    def file(self, results: Path) -> Path:
        """Return the file that this shard writes."""
        return _part_file(results, f"{self.index}-of-{self.count}")


def worker_file(results: Path, worker: str) -> Path:
    """Return the file that a worker writes; `worker` is a hexadecimal number."""
    return _part_file(results, f"worker-{worker}")


def _part_file(results: Path, part: str) -> Path:
    return results.with_name(f"{results.stem}-{part}{results.suffix}")


def _find_part_files(results: Path, part: str) -> list[Path]:
    """Return the existing files of shards or workers, by name."""
    name = re.compile(f"{re.escape(results.stem)}-(?:{part}){re.escape(results.suffix)}")
    paths = results.parent.iterdir() if results.parent.is_dir() else []
    return sorted(path for path in paths if name.fullmatch(path.name))


def exist(results: Path) -> bool:
    """Return whether there are results, in the common file or in a file of a shard or worker."""
    return results.is_file() or bool(_find_part_files(results, f"{_SHARD_PATTERN}|{_WORKER_PATTERN}"))


def read(results: Path) -> list[ResultLine]:
    """Return the lines of all files; raises UserError with file and number of a line that is not a result.

    The lines of the common file come first, then those of the other files, by file name. If several lines belong to one
    run and split, the first without an error is returned.
    """
    return [line for _, line in _merge(results)]


def _merge(results: Path) -> list[tuple[str, ResultLine]]:
    """Return the lines of all files, each as text and parsed, without repeated runs and outdated failures."""
    pairs = read_texts(results)
    for path in _find_part_files(results, f"{_SHARD_PATTERN}|{_WORKER_PATTERN}"):
        for text, line in read_texts(path):
            same_run = [other for _, other in pairs if other.key == line.key]
            succeeded = any(not other.failed and other.split == line.split for other in same_run)
            if succeeded or (line.failed and same_run):
                continue
            pairs = [pair for pair in pairs if not (pair[1].failed and pair[1].key == line.key)]
            pairs.append((text, line))
    return pairs


def collect(results: Path) -> None:
    """Write the lines of all files into the common one, and remove those of workers; no worker may be running."""
    old_lines, merged_lines = read_texts(results), _merge(results)
    if merged_lines != old_lines:
        write_text(results, "".join(f"{text}\n" for text, _ in merged_lines))
    for path in _find_part_files(results, _WORKER_PATTERN):
        path.unlink()
