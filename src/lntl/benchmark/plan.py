"""A benchmark's plan: configurations x overrides x seeds, read from YAML and checked before anything runs."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lntl import config as configuration
from lntl.config import Config
from lntl.config import ready as ready_configs
from lntl.config.faults import describe
from lntl.errors import UserError
from lntl.plugins import Settings, did_you_mean
from lntl.yaml_file import parse

Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
# What every run of a benchmark has in common: it leaves one line, not a folder to look at.
_FORCED = (
    "evaluation.erm_epochs=0",
    "logging.use_tensorboard=false",
    "logging.checkpoint_interval_epochs=1000000",  # last.pth alone, and one at the end
)


class Entry(Settings):
    """A row of the table: a configuration, over all cells of its grid and all its seeds."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", description="Name of the method; once in a plan.")
    label: str = Field("", description="What tables and figures call it; empty for the name.")
    config: str = Field(description="A ready configuration's name, or a YAML file, relative to the plan.")
    overrides: list[str] = Field([], description="key=value, for each of its runs, after those of the plan.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="Values of keys; each combination is a cell of the table."
    )
    seeds: Seeds | None = Field(None, description="As the plan's seeds, for this row.")


class Plan(Settings):
    """The YAML of a benchmark."""

    name: str = Field(min_length=1, description="Name of the benchmark.")
    results: str = Field("results.jsonl", min_length=1, description="File of one JSON line a run; beside the plan.")
    seeds: Seeds = Field(description="Seeds of every row that names none of its own, in the order of running.")
    seed_keys: list[str] = Field(
        ["project.seed", "data.seed"], min_length=1, description="Keys of the configuration that a seed is put into."
    )
    overrides: list[str] = Field([], description="key=value, for all runs.")
    split: Literal["test", "val"] = Field(
        "test", description="What the last checkpoint of a run is scored on; val for tuning, which may not see test."
    )
    keep_runs: bool = Field(False, description="Keep the folder of a run once its line is written.")
    runs: list[Entry] = Field(min_length=1, description="The rows of the table, in its order.")

    @model_validator(mode="after")
    def _one_meaning_a_line(self) -> Self:
        names = [entry.name for entry in self.runs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"runs has the name {twice[0]!r} twice; a name is a row of the table")
        for entry in self.runs:
            if len(set(self.seeds_of(entry))) < len(self.seeds_of(entry)):
                raise ValueError(f"seeds of {entry.name}: one seed is given twice")
            if both := sorted(set(entry.grid) & set(self.seed_keys)):
                raise ValueError(f"grid of {entry.name}: {both[0]} is set by the seeds; leave it out")
        return self

    def seeds_of(self, entry: Entry) -> list[int]:
        """Return the seeds of a row."""
        return self.seeds if entry.seeds is None else entry.seeds


@dataclass(frozen=True)
class Job:
    """One run of a plan."""

    name: str
    cell: dict[str, Any]  # value by key of the grid
    hash: str
    seed: int
    config: Config

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells a run from all others: its line in the results carries the same."""
        return self.name, self.hash, self.seed

    @property
    def id(self) -> str:
        """A name for files."""
        return f"{self.name}-{self.hash}-{self.seed}"

    @property
    def told(self) -> str:
        """What it is called in messages."""
        return " ".join((self.name, *(f"{key}={value}" for key, value in self.cell.items()), f"seed={self.seed}"))


def read(path: Path) -> Plan:
    """Return the checked plan; raises UserError with every fault, one a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the plan: {getattr(error, 'strerror', None) or error}") from None
    raw = parse(text, str(path))
    try:
        return Plan.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, Plan, raw)]
        raise UserError("\n".join([f"{path}: {len(faults)} fault(s) in the plan", *faults])) from None


def jobs(plan: Plan, path: Path) -> list[Job]:
    """Return the runs of the plan at `path`: all cells of the first seed, then all of the second, and so on.

    Raises UserError where two cells are one run.
    """
    rows = [
        (position, job)
        for entry in plan.runs
        for cell in _cells(entry)
        for position, job in enumerate(_of_cell(plan, entry, cell, path))
    ]
    seen: dict[tuple[str, str, int], Job] = {}
    for _, job in rows:
        if (twin := seen.setdefault(job.key, job)) is not job:
            raise UserError(
                f"{path}: {twin.told} and {job.told} are one run: equal values, or keys that do not change what is "
                "trained, such as evaluation.*; leave one of them out of the grid"
            )
    return [job for _, job in sorted(rows, key=lambda row: row[0])]


def _cells(entry: Entry) -> Iterator[dict[str, Any]]:
    for values in product(*entry.grid.values()):
        yield dict(zip(entry.grid, values, strict=True))


def _of_cell(plan: Plan, entry: Entry, cell: dict[str, Any], path: Path) -> list[Job]:
    """Return the runs of a cell, a seed each; their configurations differ in nothing else and share a hash."""
    source = ready_configs.find(entry.config) if entry.config in ready_configs.names() else path.parent / entry.config
    given = [*plan.overrides, *entry.overrides, *(f"{key}={json.dumps(value)}" for key, value in cell.items())]

    def config(seed: int) -> Config:
        seeded = [f"{key}={seed}" for key in plan.seed_keys]
        try:
            if not source.suffix:  # a name, though not of a ready one
                ready_configs.find(entry.config)
            return configuration.read(source, [*given, *seeded, *_FORCED])
        except UserError as error:
            raise UserError(f"{path}: {entry.name}: {error}") from error

    digest = fingerprint(config(seed=0))
    return [Job(entry.name, cell, digest, seed, config(seed)) for seed in plan.seeds_of(entry)]


def fingerprint(config: Config) -> str:
    """Return a hash of what is trained, on what, and how: the settings that are not at their default.

    Names, places and the device are left out: neither another folder nor a new setting makes old results out of date.
    """
    raw = config.model_dump(include={"data", "model", "training"}, exclude_defaults=True)
    raw["training"].pop("device", None)
    return hashlib.blake2b(json.dumps(raw, sort_keys=True).encode(), digest_size=6).hexdigest()


def only(all_jobs: list[Job], texts: list[str]) -> list[Job]:
    """Return the runs that the texts pick: names (* stands for anything), key=value of the grid, or seed=N.

    Texts about one thing are alternatives: "erm", "lntl", "seed=10" picks the runs of erm and lntl with seed 10.
    """
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        wanted.setdefault(key if equals else "name", []).append(value if equals else text)
        if not any(_picked(job, key if equals else "name", value if equals else text) for job in all_jobs):
            names = sorted({job.name for job in all_jobs})
            raise UserError(f"--only {text}: the plan has no such run{did_you_mean(text, names)}")
    return [job for job in all_jobs if all(any(_picked(job, k, v) for v in values) for k, values in wanted.items())]


def _picked(job: Job, key: str, value: str) -> bool:
    if key == "name":
        return fnmatchcase(job.name, value)
    wanted: object = parse(value, f"--only {key}")
    return wanted == (job.cell | {"seed": job.seed}).get(key)
