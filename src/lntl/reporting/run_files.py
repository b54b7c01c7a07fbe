"""Read a run folder: a file that is missing or cannot be read is a warning, not an error."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from lntl.errors import UserError
from lntl.runs.files import read_arrays, read_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Environment, Epoch, Evaluation, ImageShift, Probe, Recoloring, Result, Saliency
from lntl.text import shell
from lntl.yaml_file import parse

Arrays = dict[str, NDArray[Any]]
Model = TypeVar("Model", bound=BaseModel)


@dataclass
class RunFiles:
    """The content of a run folder; None or empty for missing files. `warnings` are sentences about problems."""

    path: Path
    config_text: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    environment: Environment | None = None
    epochs: list[Epoch] = field(default_factory=list)
    result: Result | None = None
    evaluation: Evaluation | None = None
    probe: Probe | None = None
    recoloring: Recoloring | None = None
    samples: Arrays | None = None
    strip: Arrays | None = None
    embedding: Arrays | None = None
    image_shift: ImageShift | None = None
    shift_strip: Arrays | None = None
    saliency: Saliency | None = None
    saliency_maps: Arrays | None = None
    erm: "RunFiles | None" = None
    warnings: list[str] = field(default_factory=list)

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of the configuration; empty if it is missing or not a mapping."""
        content = self.config.get(name)
        return content if isinstance(content, dict) else {}

    @property
    def phases(self) -> list[dict[str, Any]]:
        """The phases of the configuration."""
        phases = self.section("training").get("phases")
        return [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []

    @property
    def is_plain(self) -> bool:
        """Whether the run is plain training without random colors, so that nothing in it reduces a bias."""
        return self.method == "erm" and not self.section("data").get("random_colors")

    @property
    def has_bias(self) -> bool:
        """Whether any evaluated image has a bias label; True without an evaluation."""
        return self.evaluation is None or any(row.n for row in self.evaluation.by_bias)

    @property
    def method(self) -> str:
        """The method of the last phase, or the one in result.json if no phases are known."""
        last_method = self.phases[-1].get("method") if self.phases else None
        return str(last_method or (self.result and self.result.method) or "unknown")


def read_run(path: Path) -> RunFiles:
    """Return the content of a run folder; raises UserError if `path` is not a run folder."""
    folder = RunFolder(path)
    if not (folder.holds_a_run or folder.result.exists() or folder.metrics.exists()):
        raise UserError(
            f"{path}: not a run folder (it has neither config.yaml nor checkpoints/); train one: lntl train"
        )
    folder.check_files()
    files = RunFiles(path)
    _read_configuration(files, folder)
    files.environment = _read_model(files, folder.environment, Environment)
    files.epochs = _read_epochs(files, folder.metrics)
    files.result = _read_model(files, folder.result, Result)
    files.evaluation = _read_model(files, folder.evaluation_of(folder.best_or_last), Evaluation)
    files.probe = _read_model(files, folder.probe, Probe)
    files.recoloring = _read_model(files, folder.recoloring, Recoloring)
    files.samples = _read_arrays(files, folder.samples, {"train": 5, "test": 5, "class_names": 1})
    files.strip = _read_arrays(files, folder.recoloring_strip, {"x": 5, "predicted": 2, "y": 1})
    files.embedding = _read_arrays(files, folder.embedding, {"xy": 2, "y": 1, "bias": 1})
    files.image_shift = _read_model(files, folder.image_shift, ImageShift)
    files.shift_strip = _read_arrays(files, folder.image_shift_strip, {"x": 6, "predicted": 3, "y": 1})
    files.saliency = _read_model(files, folder.saliency, Saliency)
    if files.saliency is not None:
        dimensions = {"images": {"pictures": 4, "maps": 4}, "vectors": {"maps": 3}}[files.saliency.kind]
        files.saliency_maps = _read_arrays(files, folder.saliency_maps, dimensions)
    if files.section("evaluation").get("erm_epochs") and RunFolder(folder.erm).holds_a_run:
        files.erm = read_run(folder.erm)
        files.warnings += files.erm.warnings
    _warn_of_outdated_measurements(files)
    return files


def _read_configuration(files: RunFiles, folder: RunFolder) -> None:
    if not folder.config.exists():
        files.warnings.append(f"{folder.config} is missing: the settings of the run are unknown")
        return
    try:
        files.config_text = folder.config.read_text(encoding="utf-8")
        config = parse(files.config_text, str(folder.config))
    except (UserError, OSError, UnicodeDecodeError) as error:
        files.warnings.append(f"the configuration cannot be read: {error}")
        return
    files.config = config if isinstance(config, dict) else {}


def _read_model(files: RunFiles, path: Path, kind: type[Model]) -> Model | None:
    """Return the content of a JSON file, or None if it is missing or damaged; add a warning if it is damaged."""
    if not path.exists():
        return None
    try:
        return read_json(path, kind)
    except UserError as error:
        files.warnings.append(str(error))
        return None


def _read_epochs(files: RunFiles, path: Path) -> list[Epoch]:
    """Return the epochs of metrics.jsonl; add a warning for each unreadable line, which a crash can leave."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        files.warnings.append(f"{path}: cannot read it: {error.strerror}")
        return []
    epochs = []
    for number, line in enumerate(lines, 1):
        try:
            epochs.append(Epoch.model_validate_json(line))
        except ValidationError:
            files.warnings.append(f"{path}, line {number}: not the metrics of an epoch; left out")
    return epochs


def _read_arrays(files: RunFiles, path: Path, dimensions: dict[str, int]) -> Arrays | None:
    """Return the arrays of an .npz file, or None if it is missing or damaged; `dimensions`: number of axes by name."""
    if not path.exists():
        return None
    try:
        return read_arrays(path, dimensions)
    except UserError as error:
        files.warnings.append(str(error))
        return None


def _warn_of_outdated_measurements(files: RunFiles) -> None:
    """Warn if the run is unfinished; otherwise, warn of each measurement that was not made at the best epoch."""
    if files.result is None:
        files.warnings.append(f"{files.path}: this run is unfinished; lntl train with --resume auto continues it")
        return
    best = files.result.best.epoch
    for name, command, measurement in (
        ("the evaluation", "eval", files.evaluation),
        ("the probe", "probe", files.probe),
        ("the recoloring", "probe", files.recoloring),
        ("the change of brightness or color", "probe", files.image_shift),
    ):
        if measurement is not None and measurement.epoch not in (best, None):
            files.warnings.append(
                f"{name} was made at epoch {measurement.epoch}, but the best checkpoint is from epoch {best}; "
                f"measure it again: lntl {command} {shell(files.path)}"
            )
