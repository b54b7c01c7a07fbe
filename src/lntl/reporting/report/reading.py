"""Read a run folder as far as it goes: what is missing or cannot be read is noted, and never an error."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from lntl.errors import UserError
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Epoch, Evaluation, Probe, Recoloring, Result
from lntl.yaml_file import parse

Arrays = dict[str, NDArray[Any]]
Model = TypeVar("Model", bound=BaseModel)


@dataclass
class RunFiles:
    """What a run folder holds; None or empty where a file is missing. `faults` are sentences on what is wrong."""

    path: Path
    config_text: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    result: Result | None = None
    evaluation: Evaluation | None = None
    probe: Probe | None = None
    recoloring: Recoloring | None = None
    samples: Arrays | None = None
    strip: Arrays | None = None
    embedding: Arrays | None = None
    erm: "RunFiles | None" = None
    faults: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The method of the last phase, as far as it is known."""
        phases = self.phases
        told = phases[-1].get("method") if phases else None
        return str(told or (self.result and self.result.method) or "unknown")

    @property
    def phases(self) -> list[dict[str, Any]]:
        """The phases of the configuration."""
        training = self.config.get("training")
        phases = training.get("phases") if isinstance(training, dict) else None
        return [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []


def read(path: Path) -> RunFiles:
    """Return what the run folder holds; raises UserError where it is none."""
    folder = RunFolder(path)
    if not (folder.holds_a_run or folder.result.exists() or folder.metrics.exists()):
        raise UserError(f"{path}: no run folder (it has neither config.yaml nor checkpoints/); train one: lntl train")
    files = RunFiles(path)
    _read_configuration(files, folder)
    files.environment = _json(files, folder.environment)
    files.records = _records(files, folder.metrics)
    files.result = _model(files, folder.result, Result)
    files.evaluation = _model(files, folder.evaluation_of(folder.best_or_last), Evaluation)
    files.probe = _model(files, path / "probe.json", Probe)
    files.recoloring = _model(files, path / "recoloring.json", Recoloring)
    files.samples = _arrays(files, folder.samples, {"train": 5, "test": 5, "class_names": 1})
    files.strip = _arrays(files, path / "recoloring.npz", {"x": 5, "predicted": 2, "y": 1})
    files.embedding = _arrays(files, path / "embedding.npz", {"xy": 2, "y": 1, "bias": 1})
    asked = files.config.get("evaluation")
    if isinstance(asked, dict) and asked.get("erm_epochs") and RunFolder(folder.erm).holds_a_run:
        files.erm = read(folder.erm)
        files.faults += files.erm.faults
    _note_stale(files)
    return files


def _read_configuration(files: RunFiles, folder: RunFolder) -> None:
    if not folder.config.exists():
        files.faults.append(f"{folder.config} is missing, so the report does not know the settings of the run")
        return
    try:
        files.config_text = folder.config.read_text(encoding="utf-8")
        config = parse(files.config_text, str(folder.config))
    except (UserError, OSError, UnicodeDecodeError) as error:
        files.faults.append(f"the configuration cannot be read: {error}")
        return
    files.config = config if isinstance(config, dict) else {}


def _json(files: RunFiles, path: Path) -> Any:
    """Return the content of a JSON file, None where there is none."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        files.faults.append(f"{path} cannot be read ({error}); remove it and make it anew")
        return None


def _model(files: RunFiles, path: Path, kind: type[Model]) -> Model | None:
    content = _json(files, path)
    if content is None:
        return None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        files.faults.append(f"{path} is not as this version writes it ({place}: {first['msg']}); make it anew")
        return None


def _records(files: RunFiles, path: Path) -> list[dict[str, Any]]:
    """Return the epochs of metrics.jsonl; a line that is none, as a crash may leave, is left out and noted."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(Epoch.model_validate_json(line).model_dump())
        except ValidationError:
            files.faults.append(f"{path}, line {number}: not the metrics of an epoch; left out")
    return records


def _arrays(files: RunFiles, path: Path, dimensions: dict[str, int]) -> Arrays | None:
    """Return the arrays of an .npz file, each of so many dimensions; None where there is none."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in dimensions}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        files.faults.append(f"{path} cannot be read ({error}); remove it and make it anew")
        return None
    wrong = [name for name, array in arrays.items() if array.ndim != dimensions[name] or not len(array)]
    if wrong:
        files.faults.append(f"{path} is not as this version writes it ({', '.join(wrong)}); make it anew")
        return None
    return arrays


def _note_stale(files: RunFiles) -> None:
    """Note what was measured on another epoch than the best of the finished run."""
    if files.result is None:
        files.faults.append(f"{files.path}: this run is not over; `lntl train` with --resume auto goes on")
        return
    best = files.result.best.epoch
    for name, command, part in (
        ("the evaluation", "eval", files.evaluation),
        ("the probe", "probe", files.probe),
        ("the recolouring", "probe", files.recoloring),
    ):
        if part is not None and part.epoch not in (best, None):
            files.faults.append(
                f"{name} is of epoch {part.epoch}, the best checkpoint of epoch {best}; `lntl {command} {files.path}`"
            )
