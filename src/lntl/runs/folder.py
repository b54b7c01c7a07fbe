"""The folder of a run."""

import json
import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from lntl.errors import UserError
from lntl.runs import environment
from lntl.runs.files import read_json, remove_temporary_files, write_json, write_text
from lntl.runs.formats import Environment, Epoch, Result

log = logging.getLogger("lntl")
EXPORT_SUFFIX = ".safetensors"  # suffix of an export, which has the weights of f and g, but not h and the data


def check_no_link(path: Path) -> None:
    """Raise UserError if a folder or file of a run is a link, through which a run would write elsewhere."""
    if path.is_symlink():
        raise UserError(
            f"{path}: it is a link, but a run writes only into its own folder; replace the link by its target"
        )


class RunFolder:
    """The files of a run, by name.

    `lntl train` writes config.yaml, environment.json, run.log, metrics.jsonl, checkpoints/, evaluation/, result.json,
    and the files of trackers (tensorboard_logs/, wandb/, trackers.json). If rows of the data were left out, it also
    writes skipped_rows.txt; if evaluation.erm_epochs is set, it also writes erm/, another run folder. `lntl probe` adds
    probe.json and embedding.npz. If the data can be recolored, it also adds recoloring.json and recoloring.npz; if it
    measures the effect of brightness or color, it also adds image_shift.json and image_shift.npz. `lntl report` adds
    samples.npz, saliency.json, saliency.npz and report/. `lntl card` adds MODEL_CARD.md.

    Args:
        path: The folder; it need not exist.

    Example:
        >>> folder = RunFolder(Path("results/colored_mnist_lntl"))
        >>> folder.best.name
        'best_model.pth'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.log = path / "run.log"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard_logs"
        self.wandb = path / "wandb"  # the client of Weights & Biases chooses this name
        self.trackers = path / "trackers.json"
        self.checkpoints = path / "checkpoints"
        self.evaluation = path / "evaluation"
        self.result = path / "result.json"
        self.probe = path / "probe.json"
        self.embedding = path / "embedding.npz"
        self.recoloring = path / "recoloring.json"
        self.recoloring_strip = path / "recoloring.npz"
        self.image_shift = path / "image_shift.json"
        self.image_shift_strip = path / "image_shift.npz"
        self.saliency = path / "saliency.json"
        self.saliency_maps = path / "saliency.npz"
        self.samples = path / "samples.npz"
        self.skipped = path / "skipped_rows.txt"
        self.report = path / "report"
        self.card = path / "MODEL_CARD.md"
        self.erm = path / "erm"
        self.last = self.checkpoints / "last.pth"
        self.best = self.checkpoints / "best_model.pth"

    @staticmethod
    def resolve(target: Path, prefer: Literal["best", "last"] = "best", *, exports: bool = False) -> Path:
        """Return the file with the weights for a run folder, a checkpoint or an export that a user names.

        Args:
            target: A run folder, a .pth file inside one or elsewhere, or a .safetensors export.
            prefer: The checkpoint of a run folder. "best" falls back to the last checkpoint, with a warning, if there
                is no best one.
            exports: Whether exports are accepted.

        Raises:
            UserError: If there is no such file, or it is an export and exports are not accepted.
        """
        if not target.exists():
            raise UserError(
                f"{target}: there is no such checkpoint or run folder; `ls {target.parent}` lists the files there"
            )
        if not target.is_dir():
            if target.suffix == EXPORT_SUFFIX and not exports:
                raise UserError(f"{target}: it is an export, which has no h and no data; name its run folder")
            return target
        folder = RunFolder(target)
        preferred = folder.best if prefer == "best" else folder.last
        if preferred.exists():
            return preferred
        others = sorted(folder.checkpoints.glob("*.pth"))
        if not others:
            raise UserError(
                f"{target}: its folder checkpoints/ has no checkpoint; is it a run folder, and has training begun?"
            )
        if prefer == "best" and folder.last.exists():
            log.warning("%s has no best checkpoint yet, so its last checkpoint is used: %s", target, folder.last)
            return folder.last
        raise UserError(f"{preferred} is missing; name another checkpoint, e.g. {others[-1]}")

    @staticmethod
    def of_checkpoint(path: Path) -> "RunFolder | None":
        """Return the run folder of a checkpoint in RUN/checkpoints/; None for a checkpoint in another folder."""
        if path.parent.name != "checkpoints":  # a path such as "last.pth" does not name its folder
            path = path.resolve()
        return RunFolder(path.parent.parent) if path.parent.name == "checkpoints" else None

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun in this folder."""
        return self.config.exists() or self.checkpoints.exists()

    @property
    def best_or_last(self) -> Path:
        """The best checkpoint; the last one if there is no best."""
        return self.last if self.last.exists() and not self.best.exists() else self.best

    def checkpoint(self, total_epoch: int) -> Path:
        """Return the path of the checkpoint after an epoch of the run, counted from 1."""
        return self.checkpoints / f"checkpoint_epoch_{total_epoch:02d}.pth"

    def epoch_checkpoints(self) -> dict[int, Path]:
        """Return the existing checkpoints of epochs, by epoch of the run."""
        paths = {path: re.fullmatch(r"checkpoint_epoch_(\d+)", path.stem) for path in self.checkpoints.glob("*.pth")}
        return {int(match[1]): path for path, match in sorted(paths.items()) if match}

    def evaluation_of(self, checkpoint: Path, split: str = "test") -> Path:
        """Return the file of a checkpoint's evaluation: SPLIT.json for the best checkpoint, SPLIT_NAME.json for others.

        The predictions are in the same folder, with the suffix .npz.
        """
        name = split if checkpoint.name == self.best.name else f"{split}_{checkpoint.stem}"
        return self.evaluation / f"{name}.json"

    def create(self, config_yaml: str, overwrite: bool = False) -> None:
        """Make the folder of a new run.

        Args:
            config_yaml: The resolved configuration.
            overwrite: Whether to replace an existing run; files that no run writes are kept.

        Raises:
            UserError: If a run exists that may not be overwritten, or the folder cannot be written.
        """
        run_exists = self.holds_a_run
        if run_exists and not overwrite:
            raise UserError(
                f"{self.path} already contains a run: continue it with --resume auto, replace it with --overwrite, "
                "or set another project.experiment_name"
            )
        if not run_exists and (others := [path for path in self._run_paths() if path.exists()]):
            raise UserError(
                f"{others[0]} exists, but {self.path} contains no run, and a new run would replace the file: move it "
                "away, or set another project.experiment_name"
            )
        try:
            if run_exists:
                self._clear()
            self.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot make the run folder: {error.strerror}; set logging.output_dir to a writable "
                "folder"
            ) from error
        write_text(self.config, config_yaml)
        write_json(self.environment, environment.describe())

    def resume(self, config_yaml: str) -> None:
        """Continue the run with these settings; another machine or version is recorded in environment.json."""
        remove_temporary_files(self.path)
        try:
            recorded = read_json(self.environment, Environment)
        except UserError:  # the file is missing or damaged, so the first environment is unknown
            recorded = environment.describe()
        write_json(self.environment, environment.add_resumed_part(recorded))
        write_text(self.config, config_yaml)

    def results(self) -> list[Path]:
        """Return the files that would be lost with the run: all files that are written after its first step."""
        initial_files = (self.config, self.environment, self.checkpoints, self.skipped, self.trackers)
        return [path for path in self._run_paths() if path not in initial_files and path.exists()]

    def check_links(self) -> None:
        """Raise UserError if a folder or the log of the run is a link, through which the run would write elsewhere."""
        for path in (self.checkpoints, self.evaluation, self.tensorboard, self.wandb, self.report, self.log, self.erm):
            check_no_link(path)
        self.check_files()

    def check_files(self) -> None:
        """Raise UserError for a path that is neither a file nor a folder, such as a pipe, which could block."""
        for path in self._run_paths():
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise UserError(f"{path}: is neither a file nor a folder; remove it")

    def _run_paths(self) -> tuple[Path, ...]:
        """Return the files of a run and of later commands; those that `holds_a_run` checks are the last."""
        run_paths = (
            self.tensorboard,
            self.evaluation,
            self.report,
            self.environment,
            self.log,
            self.metrics,
            self.result,
        )
        probe_paths = (self.probe, self.embedding, self.recoloring, self.recoloring_strip, self.image_shift)
        report_paths = (self.saliency, self.saliency_maps, self.samples)
        command_paths = (*probe_paths, self.image_shift_strip, *report_paths, self.skipped)
        return (*run_paths, *command_paths, self.wandb, self.trackers, self.card, self.checkpoints, self.config)

    def remove(self) -> None:
        """Remove the run and, if it is then empty, the folder."""
        self._clear()
        with suppress(OSError):
            self.path.rmdir()

    def _clear(self) -> None:
        """Remove the files of the run, and of the plain training in it."""
        remove_temporary_files(self.path)
        if not self.erm.is_symlink() and (erm := RunFolder(self.erm)).holds_a_run:
            erm._clear()
            with suppress(OSError):  # a lock or other files are still there
                erm.path.rmdir()
        for path in self._run_paths():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_metrics(self, epochs: list[Epoch]) -> None:
        """Write metrics.jsonl, one line per epoch."""
        write_text(self.metrics, "".join(json.dumps(epoch.model_dump(exclude_unset=True)) + "\n" for epoch in epochs))

    def read_metrics(self) -> list[Epoch]:
        """Return the metrics of each finished epoch; raises UserError if a line is damaged."""
        lines = self.metrics.read_bytes().splitlines() if self.metrics.exists() else []
        epochs = []
        for number, line in enumerate(lines, 1):
            try:
                epochs.append(Epoch.model_validate_json(line))
            except ValidationError as error:
                raise UserError(f"{self.metrics}, line {number}: is damaged; remove it") from error
        return epochs

    def read_result(self) -> Result | None:
        """Return the content of result.json, None if the run is unfinished; raises UserError if it is damaged."""
        return read_json(self.result, Result) if self.result.exists() else None
