"""Repair a finished run: refit its last layer, or erase the bias from its features, in a new run."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from lntl import config as configuration
from lntl.config import Config
from lntl.config.keys import RUN_NAME, RUN_NAME_RULE
from lntl.errors import Interrupted, UserError
from lntl.experiment.evaluate import conclude
from lntl.experiment.run import Run, Watch, exhaust, flush_denormals, start, stop_signals
from lntl.methods import load_method
from lntl.runs import checkpoint
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Result
from lntl.runs.lock import hold_lock


def repair(
    target: Path,
    method: str,
    out: Path | None = None,
    settings: Mapping[str, object] | None = None,
    *,
    device: str | None = None,
    trust: Sequence[str] = (),
    watch: Watch = exhaust,
) -> tuple[Run, Result]:
    """Repair a finished run with a method that needs no training (dfr or leace), and evaluate the new run.

    The new run has the configuration of the old one, with this method as its only phase and the checkpoint in
    `training.start_from`. If the repair fails, the folder of the new run is removed.

    Args:
        target: A run folder, whose best checkpoint is repaired, or a checkpoint.
        method: "dfr" or "leace".
        out: Folder of the new run; None for RUN-METHOD.
        settings: Settings of the method.
        device: The device to use instead of the configuration's.
        trust: The user's modules that may be imported to load the checkpoint.
        watch: As for `train`.

    Returns:
        The new run and the content of its result.json.

    Raises:
        UserError: If the new folder exists, the checkpoint cannot be read or its data have changed, the data have no
            bias labels, or the method cannot be fitted on them.
        KeyboardInterrupt: If the repair was stopped.
    """
    path = RunFolder.resolve(target)
    config = _repair_config(path, method, out, settings or {}, device, trust)
    folder = Path(config.logging.output_dir) / config.project.experiment_name
    if folder.exists():
        raise UserError(f"{folder}: it exists already; name another folder with --out")
    try:
        with stop_signals() as stop, hold_lock(folder), flush_denormals(), ExitStack() as on_failure:
            run = start(config, trust=trust)
            on_failure.callback(run.folder.remove)
            watch(run, run.train(stop))
            result = conclude(run, None)
            on_failure.pop_all()
    except Interrupted as error:
        raise KeyboardInterrupt from error  # nothing remains that could be resumed
    return run, result


def _repair_config(
    path: Path,
    method: str,
    out: Path | None,
    settings: Mapping[str, object],
    device: str | None,
    trust: Sequence[str],
) -> Config:
    """Return the configuration of the repair of a checkpoint."""
    if not (method_class := load_method(method)).fits:
        raise UserError(f"{method} cannot repair a finished run; use dfr or leace")
    if annulled := [key for key in ("method", "epochs", "ema") if key in settings]:
        raise UserError(f"setting {annulled[0]}: a repair sets it itself; leave it out")
    saved = checkpoint.load(path)
    configuration.check_trusted(saved.config, str(path), trust)
    raw = configuration.validate(saved.config, f"{path} (the configuration inside)").model_dump()
    if out is None:
        folder = RunFolder.of_checkpoint(path)
        if folder is None:
            raise UserError(f"{path}: is not in a run folder; name the folder of the repaired run with --out")
        out = folder.path.with_name(f"{folder.path.resolve().name}-{method}")
    if re.match(RUN_NAME, out.name) is None:
        raise UserError(f"{out}: the folder of a run needs {RUN_NAME_RULE}; name another folder with --out")
    raw["project"] |= {"experiment_name": out.name, "description": f"{path}, repaired by {method}"}
    raw["logging"]["output_dir"] = str(out.parent)
    raw["model"] |= method_class.required_model_settings
    raw["evaluation"]["erm_epochs"] = 0
    phase = {**settings, "method": method, "epochs": 1, "ema": None}
    raw["training"] |= {"start_from": str(path), "ema": None, "phases": [phase], "devices": 1, "num_nodes": 1}
    if device is not None:
        raw["training"]["device"] = device
    return configuration.validate(raw, f"{path} (repaired)")
