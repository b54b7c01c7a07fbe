"""Trackers: MLflow's local store, W&B offline, and trackers that fail."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lntl import cli, experiment, trackers
from lntl.benchmark.plan import config_hash
from lntl.config import Config
from lntl.errors import UserError
from lntl.experiment import Run
from lntl.runs.files import read_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import TrackerIds
from lntl.trackers import TrackedRun, Tracker, Trackers
from lntl.trackers.mlflow import MLflow
from lntl.training.trainer import Step

MakeConfig = Callable[..., Config]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An MLflow client whose runs are stored in a folder."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return mlflow.MlflowClient()


def train(run: Run, steps: int | None = None) -> None:
    """Train to the end, or train some steps and stop the run without cleaning up, like a crash."""
    events = run.train()
    for event in events:
        if steps is not None and isinstance(event, Step) and (steps := steps - 1) == 0:
            events.close()
            return


@pytest.mark.parametrize("content", ["", "{", '{"project": 5, "name": null, "ids": {}}'])
def test_a_damaged_file_of_trackers_stops_neither_a_run_nor_a_report(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    folder.trackers.write_text(content)
    with caplog.at_level(logging.WARNING, "lntl"), Trackers([], TrackedRun(folder, "project", "name")):
        trackers.add_files(folder, [tmp_path])
    assert caplog.text.count(f"{folder.trackers}: is damaged, or written by another version") == 2
    assert "until then, trackers do not find the run again" in caplog.text


@pytest.mark.full
def test_a_resumed_run_is_one_run_of_mlflow_with_metrics_settings_and_files(
    store: Any, make_config: MakeConfig
) -> None:
    config = make_config("erm", "erm", logging={"trackers": ["mlflow"]})
    run = experiment.start(config)
    train(run, steps=5)
    (run_id,) = [mlflow_run.info.run_id for mlflow_run in search_runs(store)]
    assert store.get_run(run_id).info.status == "KILLED"
    run = experiment.resume(config, run.folder.last)
    train(run)
    experiment.conclude(run, None)
    (mlflow_run,) = search_runs(store)
    assert mlflow_run.info.run_id == run_id == read_json(run.folder.trackers, TrackerIds).ids["mlflow"]
    assert (mlflow_run.info.run_name, mlflow_run.info.status) == ("tiny", "FINISHED")
    assert mlflow_run.data.params["training.phases.1.method"] == "erm"
    assert {"train/task", "val/accuracy", "test/accuracy"} <= mlflow_run.data.metrics.keys()
    steps = [metric.step for metric in store.get_metric_history(run_id, "val/accuracy")]
    assert sorted(set(steps)) == [3, 6]
    (run.folder.path / "report").mkdir()
    (run.folder.path / "report" / "index.html").write_text("page")
    trackers.add_files(run.folder, [run.folder.report])
    assert {file.path for file in store.list_artifacts(run_id)} == {"config.yaml", "result.json", "report"}
    assert [file.path for file in store.list_artifacts(run_id, "report")] == ["report/index.html"]


def search_runs(store: Any) -> list[Any]:
    experiments = [mlflow_experiment.experiment_id for mlflow_experiment in store.search_experiments()]
    return [*store.search_runs(experiments)]


@pytest.mark.full
def test_plain_training_is_a_separate_run(store: Any, make_config: MakeConfig) -> None:
    config = make_config("erm", logging={"trackers": ["mlflow"]}, evaluation={"erm_epochs": 1})
    experiment.train(config)
    assert sorted(mlflow_run.info.run_name for mlflow_run in search_runs(store)) == ["tiny", "tiny/erm"]


@pytest.mark.full
def test_wandb_offline_continues_a_run_by_its_id(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = make_config("erm", "erm", logging={"trackers": ["wandb"]})
    run = experiment.start(config)
    train(run, steps=5)
    run = experiment.resume(config, run.folder.last)
    train(run)
    experiment.conclude(run, None)
    run_id = read_json(run.folder.trackers, TrackerIds).ids["wandb"]
    run_folders = sorted((run.folder.path / "wandb").glob("offline-run-*"))
    assert len(run_folders) >= 1
    # The name of a folder ends with the id, or with the id and a number if two starts are within one second.
    assert [[file.name for file in run_folder.glob("*.wandb")] for run_folder in run_folders] == [
        [f"run-{run_id}.wandb"]
    ] * len(run_folders)
    assert not [
        record for record in caplog.records if record.name.startswith("lntl") and "tracker" in record.getMessage()
    ]


def test_a_tracker_that_fails_warns_once_and_the_run_continues(
    store: Any, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: MLflow) -> None:
        raise UserError("the server is gone")

    monkeypatch.setattr(MLflow, "_send", fail)
    run = experiment.start(make_config("erm", "erm", logging={"trackers": ["mlflow"]}))
    with caplog.at_level(logging.WARNING, "lntl"):
        train(run)
    assert len(run.folder.read_metrics()) == 2
    warnings = [record.getMessage() for record in caplog.records if "tracker" in record.getMessage()]
    assert warnings == ["the tracker mlflow failed and is left out from now on: the server is gone"]


def test_a_server_that_does_not_answer_gives_a_warning(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no server listens on this port
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = experiment.start(make_config("erm", logging={"trackers": ["mlflow"]}))
    train(run)
    (warning,) = [record.getMessage() for record in caplog.records if "tracker" in record.getMessage()]
    assert warning.startswith("the tracker mlflow failed and is left out from now on: MlflowException: ")
    assert not run.folder.trackers.exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_extra_gives_one_sentence_before_the_run_starts(
    name: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    config = make_config("erm", logging={"trackers": [name]})
    with pytest.raises(UserError, match=rf"^logging.trackers: {name} is not installed .*pip install 'lntl\[{name}\]'"):
        experiment.start(config)
    assert not experiment.run_folder(config).path.exists()


@pytest.mark.full
def test_wandb_without_a_key_gives_one_sentence(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("wandb").teardown()  # so that wandb reads its settings again
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="wandb has no key of an account; run `wandb login`, or set WANDB_MODE=offline"):
        experiment.start(make_config("erm", logging={"trackers": ["wandb"]}))


def test_names_of_trackers_are_checked(make_config: MakeConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_config("erm", logging={"use_tensorboard": True}).logging.tracker_names() == ["tensorboard"]
    assert make_config("erm", logging={"trackers": ["mlflow", "tensorboard"]}).logging.tracker_names() == ["mlflow"]
    with pytest.raises(UserError, match=r"logging.trackers.0: unknown value 'mlflov'; did you mean 'mlflow'\?"):
        make_config("erm", logging={"trackers": ["mlflov"]})
    with pytest.raises(SystemExit):
        cli.main(["train", "colored_mnist_default", "logging.trackers=[tensorbord]"])
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err


def test_trackers_do_not_change_the_key_of_a_benchmark_run(make_config: MakeConfig) -> None:
    assert config_hash(make_config("erm")) == config_hash(make_config("erm", logging={"trackers": ["mlflow"]}))


def test_the_base_class_tracker_ignores_all_calls(make_config: MakeConfig) -> None:
    config = make_config("erm")
    run = experiment.start(config)
    tracker = Tracker(TrackedRun(run.folder))
    tracker.data(run.experiment.data)
    tracker.scalars({"a": 1.0}, 1)
    tracker.results({"test/accuracy": 1.0}, 1)
    tracker.files([run.folder.config])
    tracker.close(finished=True)
    with Trackers([], TrackedRun(run.folder)) as open_trackers:
        open_trackers.send(lambda tracker: tracker.close(finished=True))
    assert not run.folder.trackers.exists()
