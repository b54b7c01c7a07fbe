"""A benchmark's plan: configurations x overrides x seeds, read from YAML and checked before anything runs."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lntl import config as configuration
from lntl.benchmark.results import MAX_NAME, BenchmarkRun, RunKey
from lntl.config import Config
from lntl.config.faults import describe
from lntl.errors import UserError
from lntl.plugins import Settings, did_you_mean
from lntl.yaml_file import parse, read_yaml

Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
# Settings of every run of a benchmark: it leaves one line, not a folder to look at.
_FORCED = (
    "evaluation.erm_epochs=0",
    "logging.use_tensorboard=false",
    "logging.trackers=[]",
    "logging.checkpoint_interval_epochs=1000000",  # last.pth alone, and one at the end
)


class PlannedMethod(Settings):
    """A row of the table: a configuration, for all values of its grid and all its seeds."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$",
        max_length=MAX_NAME,
        description="Name of the method; once in a plan.",
    )
    label: str = Field("", max_length=MAX_NAME, description="What tables and figures call it; empty for the name.")
    config: str = Field(description="A ready configuration's name, or a YAML file, relative to the plan.")
    overrides: list[str] = Field([], description="key=value, for each of its runs, after those of the plan.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="Values of keys; each combination is a cell of the table."
    )
    seeds: Seeds | None = Field(None, description="As the plan's seeds, for this row.")


class BenchmarkPlan(Settings):
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
    runs: list[PlannedMethod] = Field(min_length=1, description="The rows of the table, in its order.")

    @model_validator(mode="after")
    def _no_run_twice(self) -> Self:
        names = [method.name for method in self.runs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"runs has the name {twice[0]!r} twice; a name is a row of the table")
        for method in self.runs:
            if len(set(self.seeds_of(method))) < len(self.seeds_of(method)):
                raise ValueError(f"seeds of {method.name}: one seed is given twice")
            if both := sorted(set(method.grid) & set(self.seed_keys)):
                raise ValueError(f"grid of {method.name}: {both[0]} is set by the seeds; leave it out")
        return self

    def seeds_of(self, method: PlannedMethod) -> list[int]:
        """Return the seeds of a row."""
        return self.seeds if method.seeds is None else method.seeds


@dataclass(frozen=True)
class PlannedRun(BenchmarkRun):
    """A run of a plan, with its configuration."""

    config: Config


def read(path: Path) -> BenchmarkPlan:
    """Return the plan; raises UserError with every fault, one a line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the plan: {getattr(error, 'strerror', None) or error}") from None
    raw = parse(text, str(path))
    try:
        return BenchmarkPlan.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, BenchmarkPlan, raw)]
        raise UserError("\n".join([f"{path}: {len(faults)} fault(s) in the plan", *faults])) from None


def planned_runs(plan: BenchmarkPlan, path: Path, trust: Sequence[str] | None = None) -> list[PlannedRun]:
    """Return the runs of the plan at `path`: all those of the first seed, then all of the second, and so on.

    `trust` as of `lntl.config.read`. Raises UserError where two runs have the same configuration and seed.
    """
    runs = [
        (position, run)
        for method in plan.runs
        for values in product(*method.grid.values())
        for overrides in [dict(zip(method.grid, values, strict=True))]
        for position, run in enumerate(_with_seeds(plan, method, overrides, path, trust))
    ]
    by_key: dict[RunKey, PlannedRun] = {}
    for _, run in runs:
        if (equal := by_key.setdefault(run.key, run)) is not run:
            raise UserError(
                f"{path}: {equal.title} and {run.title} are one run: equal values, or keys that do not change what is "
                "trained, such as evaluation.*; leave one of them out of the grid"
            )
    return [run for _, run in sorted(runs, key=lambda numbered: numbered[0])]


def _with_seeds(
    plan: BenchmarkPlan, method: PlannedMethod, overrides: dict[str, Any], path: Path, trust: Sequence[str] | None
) -> list[PlannedRun]:
    """Return a run for each seed; their configurations differ in nothing else and share a hash."""
    ready = method.config in configuration.ready_names()
    source = configuration.find(method.config) if ready else path.parent / method.config
    shared = [*plan.overrides, *method.overrides, *(f"{key}={json.dumps(value)}" for key, value in overrides.items())]

    def config(seed: int) -> Config:
        seeded = [f"{key}={seed}" for key in plan.seed_keys]
        try:
            if not source.suffix:  # a name, though not of a ready one
                configuration.find(method.config)
            return configuration.read(source, [*shared, *seeded, *_FORCED], trust=trust)
        except UserError as error:
            raise UserError(f"{path}: {method.name}: {error}") from error

    digest, label = config_hash(config(seed=0)), method.label or method.name
    return [PlannedRun(method.name, label, overrides, digest, s, config(s)) for s in plan.seeds_of(method)]


def config_hash(config: Config) -> str:
    """Return a hash of what is trained, on what, and how: the settings that are not at their default.

    Names, paths, the device and the number of processes are left out: neither another folder nor a new setting outdates
    old results.
    """
    raw = config.model_dump(include={"data", "model", "training"}, exclude_defaults=True)
    for key in ("device", "devices", "num_nodes"):
        raw["training"].pop(key, None)
    return hashlib.blake2b(json.dumps(raw, sort_keys=True).encode(), digest_size=6).hexdigest()


def plan_beside(results: Path) -> Path | None:
    """Return the plan that lies beside its results; None where there is none."""
    default = BenchmarkPlan.model_fields["results"].default
    for path in sorted(results.parent.glob("*.yaml")):
        raw = read_yaml(path)
        if "runs" in raw and raw.get("results", default) == results.name:
            return path
    return None


def runs_in_table_order(path: Path, trust: Sequence[str] | None = None) -> list[PlannedRun]:
    """Return the runs of a plan in the order of its rows."""
    plan = read(path)
    order = [method.name for method in plan.runs]
    return sorted(planned_runs(plan, path, trust), key=lambda run: order.index(run.name))


def select(runs: list[PlannedRun], texts: list[str]) -> list[PlannedRun]:
    """Return the runs that the texts select: names (* stands for anything), key=value of the grid, or seed=N.

    Texts about one thing are alternatives: "erm", "lntl", "seed=10" selects the runs of erm and lntl with seed 10.
    """
    selected: dict[str, list[str]] = {}
    for text in texts:
        key, _, value = text.partition("=") if "=" in text else ("name", "", text)
        selected.setdefault(key, []).append(value)
        if not any(_matches(run, key, value) for run in runs):
            names = sorted({run.name for run in runs})
            raise UserError(f"--only {text}: the plan has no such run{did_you_mean(text, names)}")
    return [run for run in runs if all(any(_matches(run, key, v) for v in values) for key, values in selected.items())]


def _matches(run: PlannedRun, key: str, value: str) -> bool:
    if key == "name":
        return fnmatchcase(run.name, value)
    parsed: object = parse(value, f"--only {key}")
    return parsed == (run.overrides | {"seed": run.seed}).get(key)
