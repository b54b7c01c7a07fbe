"""The folder of a run."""

import json
import shutil
from pathlib import Path
from typing import Any

from lntl.errors import UserError
from lntl.runs import environment
from lntl.runs.files import remove_halves, write_json, write_text


class RunFolder:
    """A run's config.yaml, environment.json, run.log, metrics.jsonl, tensorboard_logs/, checkpoints/, result.json.

    What `lntl probe` adds: probe.json, embedding.npz, and recoloring.json and .npz where the data can be recoloured.
    Its report adds samples.npz and report/, `lntl card` MODEL_CARD.md. Where rows of the data are wrong and were left
    out, skipped_rows.txt lists them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.log = path / "run.log"
        self.metrics = path / "metrics.jsonl"
        self.tensorboard = path / "tensorboard_logs"
        self.checkpoints = path / "checkpoints"
        self.evaluation = path / "evaluation"
        self.result = path / "result.json"
        self.probe = path / "probe.json"
        self.embedding = path / "embedding.npz"
        self.recoloring = path / "recoloring.json"
        self.recoloring_strip = path / "recoloring.npz"
        self.samples = path / "samples.npz"
        self.skipped = path / "skipped_rows.txt"
        self.report = path / "report"
        self.card = path / "MODEL_CARD.md"
        self.erm = path / "erm"  # a run folder of its own
        self.last = self.checkpoints / "last.pth"
        self.best = self.checkpoints / "best_model.pth"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun here."""
        return self.config.exists() or self.checkpoints.exists()

    @property
    def chosen(self) -> Path:
        """The best checkpoint; the last one where there is none."""
        return self.last if self.last.exists() and not self.best.exists() else self.best

    def checkpoint(self, total_epoch: int) -> Path:
        """Return the path of the checkpoint after that epoch of the run."""
        return self.checkpoints / f"checkpoint_epoch_{total_epoch:02d}.pth"

    def epoch_checkpoints(self) -> dict[int, Path]:
        """Return the checkpoints after an epoch that are there, by epoch of the run."""
        found = self.checkpoints.glob("checkpoint_epoch_*.pth")
        return {int(path.stem.rpartition("_")[2]): path for path in sorted(found)}

    def evaluation_of(self, checkpoint: Path, split: str = "test") -> Path:
        """Return where a checkpoint's evaluation lies: SPLIT.json of the best, SPLIT_NAME.json of any other.

        The predictions lie beside it, with the suffix .npz.
        """
        name = split if checkpoint.name == self.best.name else f"{split}_{checkpoint.stem}"
        return self.evaluation / f"{name}.json"

    def create(self, config_yaml: str, overwrite: bool = False) -> None:
        """Begin a run here; raises UserError where one is, unless it may be overwritten (other files stay)."""
        held = self.holds_a_run
        if held and not overwrite:
            raise UserError(
                f"{self.path} already holds a run: continue it with --resume auto, replace it with --overwrite, "
                "or give this one another project.experiment_name"
            )
        if not held and (others := [path for path in self._written() if path.exists()]):
            raise UserError(
                f"{others[0]} is there, but {self.path} holds no run, which would replace it: move it away, or give "
                "the run another project.experiment_name"
            )
        try:
            if held:
                self._clear()
            self.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot make the run folder: {error.strerror}; set logging.output_dir to a folder "
                "that can be written to"
            ) from error
        write_text(self.config, config_yaml)
        write_json(self.environment, environment.describe())

    def take_up(self, config_yaml: str) -> None:
        """Go on with the run here, with these settings; environment.json tells if that is another place."""
        remove_halves(self.path)
        there = self.environment.exists()
        before = json.loads(self.environment.read_text(encoding="utf-8")) if there else environment.describe()
        write_json(self.environment, environment.resumed(before))
        write_text(self.config, config_yaml)

    def _written(self) -> tuple[Path, ...]:
        """Return what a run and the commands that follow it write; last what tells that there is a run."""
        logs = (self.tensorboard, self.evaluation, self.report, self.environment, self.log, self.metrics, self.result)
        found = (self.probe, self.embedding, self.recoloring, self.recoloring_strip, self.samples, self.skipped)
        return (*logs, *found, self.card, self.checkpoints, self.config)

    def _clear(self) -> None:
        """Remove the run and its plain twin."""
        remove_halves(self.path)
        twin = (self.erm,) if RunFolder(self.erm).holds_a_run else ()
        for path in (*twin, *self._written()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew: one line an epoch."""
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the metrics of each finished epoch."""
        return [json.loads(line) for line in self.metrics.read_text().splitlines()] if self.metrics.exists() else []

    def read_result(self) -> dict[str, Any] | None:
        """Return the content of result.json, None where the run is not over."""
        return json.loads(self.result.read_text()) if self.result.exists() else None


def of_checkpoint(path: Path) -> RunFolder:
    """Return the folder of the run that a checkpoint lies in."""
    folder = _around(path)
    if folder is None:
        raise UserError(f"{path}: a checkpoint lies in RUN/checkpoints/; put it there so that its run can be found")
    return folder


def run_around(path: Path) -> RunFolder | None:
    """Return the folder of the run that a checkpoint lies in, None where it lies elsewhere."""
    folder = _around(path)
    return folder if folder is not None and folder.config.exists() else None


def _around(path: Path) -> RunFolder | None:
    if path.parent.name != "checkpoints":  # "last.pth" alone says nothing about its folder
        path = path.resolve()
    return RunFolder(path.parent.parent) if path.parent.name == "checkpoints" else None
