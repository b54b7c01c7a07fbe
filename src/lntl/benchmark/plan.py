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
from lntl.benchmark.results import MAX_NAME_LENGTH, BenchmarkRun, RunKey
from lntl.config import Config
from lntl.config.faults import describe
from lntl.config.keys import MetricName
from lntl.errors import UserError
from lntl.paper import PublishedResult
from lntl.plugins import Settings, conflict, did_you_mean
from lntl.text import count
from lntl.yaml_file import parse, read_yaml

Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
# Overrides of every run: a benchmark needs one line of results for a run, not a complete run folder.
_FORCED_OVERRIDES = (
    "evaluation.erm_epochs=0",
    "logging.use_tensorboard=false",
    "logging.trackers=[]",
    "logging.checkpoint_interval_epochs=1000000",  # only last.pth, and only at the end
)


class PlannedMethod(Settings):
    """A row of the table: a configuration, for all values of its grid and all its seeds."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$",
        max_length=MAX_NAME_LENGTH,
        description="Name of the method, unique in the plan.",
    )
    label: str = Field("", max_length=MAX_NAME_LENGTH, description="Name in tables and figures; empty to use `name`.")
    config: str = Field(description="A ready configuration's name, or a YAML file, relative to the plan.")
    overrides: list[str] = Field([], description="key=value for the runs of this row, applied after those of the plan.")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="Values of keys; each combination is a cell of the table."
    )
    seeds: Seeds | None = Field(None, description="Seeds of this row; default: those of the plan.")


class BenchmarkPlan(Settings):
    """The YAML of a benchmark."""

    name: str = Field(min_length=1, description="Name of the benchmark.")
    results: str = Field(
        "results.jsonl", min_length=1, description="File of results, one JSON line per run, beside the plan."
    )
    seeds: Seeds = Field(
        description="Seeds of every row without seeds of its own; the runs with the first seed come first."
    )
    seed_keys: list[str] = Field(
        ["project.seed", "data.seed"], min_length=1, description="Keys of the configuration that are set to the seed."
    )
    overrides: list[str] = Field([], description="key=value for all runs.")
    split: Literal["test", "val"] = Field(
        "test",
        description="Split on which the last checkpoint of a run is evaluated; tuning must use val.",
    )
    metric: MetricName = Field("accuracy", description="Metric that tables and figures show.")
    published: list[PublishedResult] = Field(
        [], description="Results of others on the test set, in this metric, to show below the rows of the plan."
    )
    keep_runs: bool = Field(False, description="Keep the folder of a run after its line is written.")
    runs: list[PlannedMethod] = Field(min_length=1, description="The rows of the table, in its order.")

    @model_validator(mode="after")
    def _check_repetitions(self) -> Self:
        for key, rows in (("runs", self.runs), ("published", self.published)):
            names = [row.name for row in rows]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise conflict(f"{key} has the name {repeated[0]!r} twice; each row of the table needs its own name")
        for method in self.runs:
            if len(set(self.seeds_of(method))) < len(self.seeds_of(method)):
                raise conflict(f"seeds of {method.name}: one seed is given twice")
            if seed_keys := sorted(set(method.grid) & set(self.seed_keys)):
                raise conflict(f"grid of {method.name}: {seed_keys[0]} is set by the seeds; leave it out")
        return self

    def seeds_of(self, method: PlannedMethod) -> list[int]:
        """Return the seeds of a row."""
        return self.seeds if method.seeds is None else method.seeds


@dataclass(frozen=True)
class PlannedRun(BenchmarkRun):
    """A run of a plan, with its configuration."""

    config: Config


def read(path: Path) -> BenchmarkPlan:
    """Return the plan; raises UserError with all faults, one per line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the plan: {getattr(error, 'strerror', None) or error}") from None
    raw = parse(text, str(path))
    try:
        return BenchmarkPlan.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, BenchmarkPlan, raw)]
        raise UserError("\n".join([f"{path}: {count(len(faults), 'error')} in the plan", *faults])) from None


def planned_runs(plan: BenchmarkPlan, path: Path, trust: Sequence[str] | None = None) -> list[PlannedRun]:
    """Return the runs of the plan at `path`: first all runs with the first seed, then all with the second, and so on.

    trust: As in `lntl.config.read`. Raises UserError if two runs have the same configuration and seed.
    """
    runs = [
        (position, run)
        for method in plan.runs
        for values in product(*method.grid.values())
        for overrides in [dict(zip(method.grid, values, strict=True))]
        for position, run in enumerate(_runs_with_seeds(plan, method, overrides, path, trust))
    ]
    by_key: dict[RunKey, PlannedRun] = {}
    for _, run in runs:
        if (first_run := by_key.setdefault(run.key, run)) is not run:
            raise UserError(
                f"{path}: {first_run.title} and {run.title} are the same run: their values are equal, or differ only "
                "in keys that do not change training, such as evaluation.*; remove one of them from the grid"
            )
    return [run for _, run in sorted(runs, key=lambda pair: pair[0])]


def _runs_with_seeds(
    plan: BenchmarkPlan, method: PlannedMethod, overrides: dict[str, Any], path: Path, trust: Sequence[str] | None
) -> list[PlannedRun]:
    """Return a run for each seed; the configurations differ only in the seed and have the same hash."""
    is_ready = method.config in configuration.ready_names()
    source = configuration.find(method.config) if is_ready else path.parent / method.config
    common_overrides = [
        *plan.overrides,
        *method.overrides,
        *(f"{key}={json.dumps(value)}" for key, value in overrides.items()),
    ]

    def read_config(seed: int) -> Config:
        seed_overrides = [f"{key}={seed}" for key in plan.seed_keys]
        try:
            if not source.suffix:  # not a ready configuration: `find` raises UserError with the most similar name
                configuration.find(method.config)
            return configuration.read(source, [*common_overrides, *seed_overrides, *_FORCED_OVERRIDES], trust=trust)
        except UserError as error:
            raise UserError(f"{path}: {method.name}: {error}") from error

    digest, label = config_hash(read_config(seed=0)), method.label or method.name
    return [PlannedRun(method.name, label, overrides, digest, s, read_config(s)) for s in plan.seeds_of(method)]


def config_hash(config: Config) -> str:
    """Return a hash of the settings of data, model and training that differ from their defaults.

    Names, paths, the device and the number of processes are left out, so old results stay valid in another folder. A
    new setting does not change the hash either, as long as it has its default.
    """
    raw = config.model_dump(include={"data", "model", "training"}, exclude_defaults=True)
    for key in ("device", "devices", "num_nodes"):
        raw["training"].pop(key, None)
    return hashlib.blake2b(json.dumps(raw, sort_keys=True).encode(), digest_size=6).hexdigest()


def plan_beside(results: Path) -> Path | None:
    """Return the plan in the folder of its results; None if there is none."""
    default = BenchmarkPlan.model_fields["results"].default
    for path in sorted(results.parent.glob("*.yaml")):
        raw = read_yaml(path)
        if "runs" in raw and raw.get("results", default) == results.name:
            return path
    return None


def runs_in_table_order(plan: BenchmarkPlan, path: Path, trust: Sequence[str] | None = None) -> list[PlannedRun]:
    """Return the runs of the plan at `path` in the order of its rows."""
    order = [method.name for method in plan.runs]
    return sorted(planned_runs(plan, path, trust), key=lambda run: order.index(run.name))


def select(runs: list[PlannedRun], texts: list[str]) -> list[PlannedRun]:
    """Return the runs that the texts select: names (* stands for any text), key=value of the grid, or seed=N.

    Texts with the same key are alternatives: "erm", "lntl", "seed=10" selects the runs of erm and lntl with seed 10.
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
