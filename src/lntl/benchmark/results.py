"""The results of a benchmark: one JSON line per run, written and read with the same model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from lntl.errors import UserError
from lntl.runs.files import describe_fault, write_text

MAX_NAME_LENGTH = 200  # characters of a method's name or label, which tables and figures show


class RunKey(NamedTuple):
    """Identifies a run among those of a benchmark."""

    name: str
    config_hash: str
    seed: int


@dataclass(frozen=True)
class BenchmarkRun:
    """A run of a benchmark: a method, values of the grid (`overrides`) and a seed."""

    name: str
    label: str  # name of the method in tables and figures
    overrides: dict[str, Any]
    config_hash: str
    seed: int

    @property
    def key(self) -> RunKey:
        """The key of this run, equal to that of its line in the results."""
        return RunKey(self.name, self.config_hash, self.seed)

    @property
    def id(self) -> str:
        """A name for files."""
        return f"{self.name}-{self.config_hash}-{self.seed}"

    @property
    def title(self) -> str:
        """A name for messages."""
        return " ".join((self.name, *(f"{key}={value}" for key, value in self.overrides.items()), f"seed={self.seed}"))


Score = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]  # a metric; the bound keeps means and figures finite


class _StrictModel(BaseModel):
    model_config = ConfigDict(strict=True)


class Hardware(_StrictModel):
    """The machine on which a run was computed."""

    processor: str | None = None
    cores: int | None = None
    threads: int | None = None
    memory_gib: FiniteFloat | None = None
    cuda: str | None = None
    torch: str | None = None
    runs_at_once: int | None = None


class Origin(_StrictModel):
    """Code and hardware that computed a run, or the earlier part of a run that was resumed on another machine."""

    git_commit: str | None = None
    git_dirty: bool | None = None
    hardware: Hardware = Hardware()
    lntl: str | None = None


class ResultLine(_StrictModel):
    """A line of results.jsonl; `seconds` is the time of training, `wall_seconds` that of the whole process.

    A failed run has `error` instead of `metrics`. Old lines without `split` are results on test.
    """

    name: str = Field(max_length=MAX_NAME_LENGTH)
    config_hash: str
    overrides: dict[str, Any]
    seed: int
    split: Literal["test", "val"] = "test"
    metrics: dict[str, Score | None] | None = None
    val: dict[str, Score | None] = {}
    epochs: int | None = None
    data: str = ""
    seconds: FiniteFloat | None = None
    wall_seconds: FiniteFloat | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    hardware: Hardware = Hardware()
    lntl: str | None = None
    earlier: list[Origin] = []
    error: str = ""
    exit_code: int | None = None
    date: str = ""

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        if self.metrics is None and not self.error:
            raise ValueError("the line has neither metrics nor an error")
        return self

    @property
    def key(self) -> RunKey:
        """The key of the run."""
        return RunKey(self.name, self.config_hash, self.seed)

    @property
    def failed(self) -> bool:
        """Whether the run stopped with an error."""
        return self.metrics is None


def read(path: Path) -> list[ResultLine]:
    """Return the lines, [] if there is no file; raises UserError with the number of a line that is not a result."""
    return [line for _, line in read_texts(path)]


def read_texts(path: Path) -> list[tuple[str, ResultLine]]:
    """Return each line as text and as a ResultLine; raises UserError like `read`."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the results: {getattr(error, 'strerror', None) or error}") from None
    return [(text, _parse(text, f"{path}, line {number}")) for number, text in enumerate(texts, 1) if text.strip()]


def _parse(text: str, position: str) -> ResultLine:
    try:
        return ResultLine.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"{position}: not the result of a run ({describe_fault(error)}); restore the file, or delete this line to "
            "make the run again"
        ) from None


def add(path: Path, line: ResultLine) -> None:
    """Append a line and remove the line of a failed attempt at the same run; the file is replaced as a whole."""
    texts = [text for text, old_line in read_texts(path) if not (old_line.failed and old_line.key == line.key)]
    content = line.model_dump(mode="json", exclude_unset=True)
    texts.append(json.dumps(content, ensure_ascii=False, allow_nan=False))
    write_text(path, "".join(text + "\n" for text in texts))
