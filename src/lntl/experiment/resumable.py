"""Whether a checkpoint may be resumed under a configuration."""

from pathlib import Path
from typing import Any

from lntl import config as configuration
from lntl.config import Config
from lntl.errors import DeadEndError
from lntl.runs.checkpoint import Checkpoint

# What a resumed run may set anew: nothing of it changes what the finished epochs have done.
_FREE = (
    "project.name",
    "project.description",
    "project.experiment_name",
    "training.device",
    "logging.",
    "evaluation.batch_size",
    "evaluation.metrics",
    "evaluation.erm_epochs",
)


def check_same(config: Config, saved: Checkpoint, path: Path) -> None:
    """Raise DeadEndError where the configuration is another; the last phase may be longer, and phases may follow it.

    A key that the checkpoint is too old to have is at its default.
    """
    before = configuration.validate(saved.config, f"{path} (the configuration inside)")
    phases = len(before.training.phases)
    further = tuple(f"training.phases.{i}." for i in range(phases, len(config.training.phases)))
    now, then = flat(config.model_dump()), flat(before.model_dump())
    last = f"training.phases.{phases - 1}.epochs"
    changed = [
        f"{key} is {now.get(key)!r}, was {then.get(key)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and not key.startswith(_FREE + further) and key != last
    ]
    if changed:
        raise DeadEndError(
            f"{path}: cannot resume, the configuration differs: {'; '.join(changed)}; use the run's own config.yaml, "
            "or train anew under another project.experiment_name"
        )
    if now[last] < saved.trainer["epoch"] and saved.trainer["phase"] == phases - 1:
        raise DeadEndError(
            f"{path}: {saved.trainer['epoch']} epochs of the last phase are done, more than {last} = {now[last]}"
        )


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by dotted path."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flat(value, f"{prefix}.{key}").items()}
    return {prefix.removeprefix("."): tree}
