"""The content of TensorBoard for a run; a resumed run has each step once."""

import errno
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
import torch
from google.protobuf import text_format
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lntl import experiment
from lntl.config import Config
from lntl.errors import UserError
from lntl.evaluation.metrics import METRICS
from lntl.experiment import Run, run_folder
from lntl.experiment.checkpoints import flatten
from lntl.runs.folder import RunFolder
from lntl.text import one_line
from lntl.trackers import Embedding, TrackedRun
from lntl.trackers.tensorboard import IMAGES_PER_CLASS, TensorBoard, _select_first_images
from lntl.training.trainer import Step
from lntl.types import Batch, ImageSplit

TERMS = {"task", "mi", "bias", "mu", "h_accuracy", "h_chance", "gradient_ratio", "lr_f", "lr_g", "lr_h"}
VAL_METRICS = tuple(METRICS)


def load_board(run: Run) -> EventAccumulator:
    """Return the data that TensorBoard shows for a run."""
    board = EventAccumulator(str(run.folder.tensorboard))
    board.Reload()
    return board


def get_steps(board: EventAccumulator, tag: str) -> list[int]:
    """Return the steps at which a scalar was logged."""
    return [event.step for event in board.Scalars(tag)]


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """The configuration of three epochs with three steps, which log at steps 2 and 3."""
    return make_config("erm", {"method": "lntl", "epochs": 2}, logging={"use_tensorboard": True})


def stop_after(run: Run, steps: int) -> None:
    """Train some steps, then stop the run without cleaning up, like a crash.

    Wait one second: event files are read in the order of their names, which contain the second of their creation.
    """
    step_events = (event for event in run.train() if isinstance(event, Step))
    for _ in range(steps):
        next(step_events)
    step_events.close()
    time.sleep(1)


def test_tensorboard_has_scalars_and_images(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    board = load_board(run)
    expected = (
        {f"train/{t}" for t in TERMS} | {f"val/{m}" for m in VAL_METRICS} | {"time/images_per_second", "time/seconds"}
    )
    undefined_on_val = {"val/demographic_parity_gap", "val/equalised_odds_gap"}
    assert set(board.Tags()["scalars"]) == expected - undefined_on_val
    assert get_steps(board, "train/task") == [2, 3, 5, 6, 8, 9]
    assert get_steps(board, "train/bias") == [5, 6, 8, 9]
    for tag in ("val/accuracy", "time/seconds"):
        assert get_steps(board, tag) == [3, 6, 9]
    assert get_steps(board, "val/bias_accuracy") == [6, 9]  # the first phase does not train h
    assert set(board.Tags()["images"]) == {"data/train", "data/test", "val/confusion_matrix"}
    assert [event.step for event in board.Images("val/confusion_matrix")] == [3, 6, 9]
    for tag in ("data/train", "data/test"):
        (image,) = board.Images(tag)
        assert image.width == 2 + 10 * 30  # ten columns of 28 pixels, with gaps of two pixels
        assert image.height == 2 + 10 * 30  # one row per class


@pytest.mark.full
def test_the_scalars_equal_metrics_jsonl(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    board = load_board(run)
    for name in ("val/accuracy", "val/bias_accuracy", "time/seconds"):
        logged_values = [event.value for event in board.Scalars(name)]
        values = [record.metrics[name] for record in run.folder.read_metrics()]
        assert logged_values == pytest.approx([value for value in values if value is not None])


@pytest.mark.full
@pytest.mark.parametrize("steps_before_crash", [5, 2, 6])
def test_a_resumed_run_shows_each_step_once(config: Config, steps_before_crash: int) -> None:
    run = experiment.start(config)
    stop_after(run, steps_before_crash)
    resumed_run = experiment.resume(config, run.folder.last)
    for _ in resumed_run.train():
        pass
    board = load_board(resumed_run)
    assert get_steps(board, "train/task") == [2, 3, 5, 6, 8, 9]
    assert get_steps(board, "val/accuracy") == [3, 6, 9]
    assert len(board.Images("data/train")) == 1


@pytest.mark.full
def test_tensorboard_shows_settings_and_results_of_a_finished_run(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    result = experiment.conclude(run, None)
    board = load_board(run)
    for name, value in result.last.test.items():
        if value is not None:
            assert [event.value for event in board.Scalars(f"test/{name}")] == pytest.approx([value])
    content = board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["data.color_var"].number_value == config.data.color_var
    assert hparams["training.phases.1.method"].string_value == "lntl"
    assert not [name for name in hparams if name.startswith("logging.")]


@pytest.mark.full
def test_a_finished_run_shows_z_in_the_projector(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    experiment.conclude(run, None)
    projector_config = ProjectorConfig()
    text_format.Parse((run.folder.tensorboard / "projector_config.pbtxt").read_text(), projector_config)
    (entry,) = projector_config.embeddings
    rows = (run.folder.tensorboard / entry.tensor_path).read_text().splitlines()
    header, *labels = (run.folder.tensorboard / entry.metadata_path).read_text().splitlines()
    test = run.experiment.data.splits["test"]
    assert header.split("\t") == ["class", "bias"]
    assert len(rows) == len(labels) == len(test)
    assert {len(row.split("\t")) for row in rows} == {32}
    assert [label.split("\t")[0] for label in labels] == [str(int(y)) for y in test.y]
    assert (run.folder.tensorboard / entry.sprite.image_path).exists()


def test_without_tensorboard_no_event_files_are_written(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config("erm", logging={"use_tensorboard": False})
    run = experiment.start(config)
    for _ in run.train():
        pass
    assert not run.folder.tensorboard.exists()


def test_a_full_disk_gives_a_warning(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(TensorBoard, "write", raise_no_space)
    run = experiment.start(config)
    for _ in run.train():
        pass
    (warning,) = [record.getMessage() for record in caplog.records if "tensorboard" in record.getMessage()]
    assert re.search(r"tensorboard_logs/events\.out\..*: cannot write it: No space .* MiB are free", warning)
    assert len(run.folder.read_metrics()) == 3


def raise_no_space(*_: object) -> None:
    """Raise the error of a write on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_record_that_is_written_in_part_is_an_error_about_a_full_disk(tmp_path: Path) -> None:
    board = TensorBoard(TrackedRun(RunFolder(tmp_path)))
    board.close(finished=True)
    with Path("/dev/full").open("wb", buffering=0) as full_device:
        board._file = full_device
        with pytest.raises(UserError, match="is the disk full"):
            board.scalars({"a": 1.0}, 1)


class FewImages(ImageSplit):
    """Images of 4 x 4 pixels whose values encode the class: three of class 0, twelve of class 1, none of class 2."""

    y = torch.tensor([1] * 6 + [0] * 3 + [1] * 6)

    def pixels(self, index: torch.Tensor) -> torch.Tensor:
        return (self.y[index][:, None, None, None] + 1).expand(-1, 3, 4, 4).to(torch.uint8)

    def batch(self, index: torch.Tensor) -> Batch:
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        raise NotImplementedError


def test_the_image_of_the_data_has_one_row_per_class() -> None:
    rows = _select_first_images(FewImages(), 3)[:, 0, 0, 0].view(3, IMAGES_PER_CLASS).tolist()
    assert rows == [[1] * 3 + [0] * 7, [2] * 10, [0] * 10]


def test_names_in_the_projector_are_on_one_line() -> None:
    assert [one_line(name) for name in ("a\tb\nc\r\n d", "plain", "\udcff")] == ["a b c d", "plain", "\\udcff"]


def test_the_table_over_runs_has_the_settings_of_all_methods(make_config: Callable[..., Config]) -> None:
    """The columns are the union of the settings of an ERM run and an LNTL run."""
    for name, phases in (("a", ["erm"]), ("b", ["erm", {"method": "lntl", "mu": 0.25}])):
        config = make_config(*phases, project={"experiment_name": name})
        run_folder(config).path.mkdir(parents=True)
        board = TensorBoard(TrackedRun(run_folder(config), settings=flatten(config.model_dump()), training=False))
        board.results({"test/accuracy": 0.5}, 1)
        board.close(finished=True)
    runs = EventMultiplexer().AddRunsFromDirectory(str(run_folder(config).path.parent))
    runs.Reload()
    provider = MultiplexerDataProvider(runs, "")
    table = Context(TBContext(data_provider=provider))
    request = RequestContext()
    metadata = table.hparams_metadata(request, "")
    columns = table.experiment_from_metadata(request, "", True, metadata, []).hparam_infos
    names = {column.name for column in columns}
    assert {"training.phases.0.method", "training.phases.1.method", "training.phases.1.mu", "project.seed"} <= names


@pytest.mark.parametrize("erm", [True, False])
def test_a_link_in_a_run_folder_is_refused(config: Config, tmp_path: Path, erm: bool) -> None:
    run = experiment.start(config)
    stop_after(run, 2)
    other_folder = tmp_path / "other_folder"
    other_folder.mkdir()
    link = run.folder.erm if erm else run.folder.tensorboard
    if not erm:
        shutil.rmtree(run.folder.tensorboard)
    link.symlink_to(other_folder)
    with pytest.raises(UserError, match=rf"{link.name}: it is a link, but a run writes only into its own folder"):
        experiment.resume(config, run.folder.last)
    assert list(other_folder.iterdir()) == []


def test_a_link_for_a_step_of_the_projector_is_refused(config: Config, tmp_path: Path) -> None:
    folder, other_folder = RunFolder(tmp_path), tmp_path / "other_folder"
    other_folder.mkdir()
    folder.tensorboard.mkdir()
    (folder.tensorboard / "00003").symlink_to(other_folder)
    board = TensorBoard(TrackedRun(folder))
    with pytest.raises(UserError, match="00003: it is a link"):
        board.features(lambda: Embedding(torch.zeros(1, 2), [("a", "b")], None), 3)
    board.close(finished=True)
    assert list(other_folder.iterdir()) == []
