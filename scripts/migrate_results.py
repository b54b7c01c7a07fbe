"""Update the lines of benchmark results to the keys and the configuration hash of lntl 0.2.

Usage: python scripts/migrate_results.py PLAN.yaml [PLAN.yaml ...]

Five keys of the configuration have new names (config.keys.RENAMED_KEYS). The hash of a line depends on the names, so
each line whose run is still in the plan gets its new hash. The metrics do not change. A second call changes nothing.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from lntl.benchmark import plan as plans
from lntl.config import Config
from lntl.config.keys import RENAMED_KEYS
from lntl.runs.files import write_text

OLD_NAMES = {new: old for old, new in RENAMED_KEYS.items()}


def compute_old_hash(config: Config) -> str:
    """Return the hash of the same settings in lntl 0.1: it is computed in the same way, but with the old names."""
    raw = config.model_dump(include={"data", "model", "training"}, exclude_defaults=True)
    raw["training"].pop("device", None)
    raw["data"] = use_old_names(raw["data"])
    raw["training"]["phases"] = [use_old_names(phase) for phase in raw["training"]["phases"]]
    return hashlib.blake2b(json.dumps(raw, sort_keys=True).encode(), digest_size=6).hexdigest()


def use_old_names(section: dict[str, Any]) -> dict[str, Any]:
    """Return the section with the keys of lntl 0.1."""
    return {OLD_NAMES.get(key, key): value for key, value in section.items()}


def rename_key(key: str) -> str:
    """Return the key of an override in lntl 0.2, where its last part may have a new name."""
    section, _, name = key.rpartition(".")
    renamed = RENAMED_KEYS.get(name, name) if section == "data" or section.startswith("training.phases.") else name
    return f"{section}.{renamed}" if section else renamed


def rewrite_results(path: Path) -> None:
    """Rewrite the results of the plan at `path`."""
    plan = plans.read(path)
    results = path.parent / plan.results
    # Both hashes are computed from the same settings with seed 0, as in the plan.
    hashes = {
        (run.name, compute_old_hash(set_seed_0(run.config, plan.seed_keys))): run.config_hash
        for run in plans.planned_runs(plan, path)
    }
    lines = [json.loads(text) for text in results.read_text(encoding="utf-8").splitlines()]
    num_changed = 0
    for line in lines:
        new_hash = hashes.get((line["name"], line["config_hash"]), line["config_hash"])
        num_changed += new_hash != line["config_hash"]
        line["config_hash"] = new_hash
        line["overrides"] = {rename_key(key): value for key, value in line["overrides"].items()}
    write_text(results, "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines))
    print(f"{results}: {len(lines)} lines, {num_changed} with another hash")


def set_seed_0(config: Config, seed_keys: list[str]) -> Config:
    """Return the configuration with seed 0 at the seed keys of the plan."""
    sections = {key.partition(".")[0]: key.partition(".")[2] for key in seed_keys}
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update={key: 0}) for name, key in sections.items()}
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite_results(Path(argument))
