"""A run that was stopped or killed and then resumed is bit-identical to a run that was never stopped."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import (
    RUN,
    TINY_CONFIG,
    SignalAtCall,
    assert_equal,
    assert_same_run,
    lntl,
    read_metrics,
    read_tree,
    run,
    start_process,
    wait_for_exit_code,
    write_config,
)

from lntl.experiment import Run, stop_signals
from lntl.reporting.run_files import read_run
from lntl.runs import checkpoint, lock
from lntl.training.trainer import Trainer
from lntl.types import Batch

TRAIN_COMMAND = ["train", "tiny.yaml"]
RESUME_COMMAND = [*TRAIN_COMMAND, "--resume", "auto"]
UPDATE_FUNCTION = "lntl.training.trainer:Trainer._update"


@pytest.fixture(scope="module")
def uninterrupted_folder(trained_folder: Callable[..., Path]) -> Path:
    """A folder in which tiny.yaml was trained from the first to the last step in one process."""
    return trained_folder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with tiny.yaml."""
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def finished_folder(uninterrupted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the uninterrupted run, as the working directory."""
    shutil.copytree(uninterrupted_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("epochs", "border"), [(1, "erm to bias_head"), (2, "bias_head to lntl"), (3, "within lntl")])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_run(
    folder: Path, uninterrupted_folder: Path, epochs: int, border: str
) -> None:
    kill_in_next_epoch = SignalAtCall(
        UPDATE_FUNCTION, call=3 * epochs + 2, signal=signal.SIGKILL
    )  # in the middle of the next epoch
    assert run(*TRAIN_COMMAND, folder=folder, prepare=kill_in_next_epoch) == -signal.SIGKILL
    assert len(read_metrics(folder / RUN)) == epochs
    assert run(*RESUME_COMMAND, folder=folder) == 0
    assert_same_run(folder / RUN, uninterrupted_folder / RUN)


@pytest.mark.parametrize("name", ["checkpoint_epoch_02.pth", "checkpoint_epoch_03.pth"])
def test_a_run_resumed_from_an_earlier_checkpoint_equals_an_uninterrupted_run(
    uninterrupted_folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(uninterrupted_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / RUN / "result.json").unlink()
    assert run(*TRAIN_COMMAND, "--resume", str(RUN / "checkpoints" / name), folder=tmp_path) == 0
    assert_same_run(tmp_path / RUN, uninterrupted_folder / RUN)


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 5),
        pytest.param(signal.SIGHUP, 7, marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, 9, marks=pytest.mark.full),
    ],
)
def test_a_signal_saves_and_prints_how_to_resume(
    folder: Path, uninterrupted_folder: Path, number: signal.Signals, step: int
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the tests run under nohup, so the run also ignores this signal")
    assert run(*TRAIN_COMMAND, folder=folder, prepare=SignalAtCall(UPDATE_FUNCTION, step, number)) == 130
    stderr = (folder / "stderr").read_text().splitlines()[-1]
    assert stderr == f"stopped at step {step}; saved in {RUN}/checkpoints/last.pth. " + (
        "To continue, run the same command with --resume auto (make train ARGS='--resume auto')."
    )
    assert "Traceback" not in (folder / "stderr").read_text()
    state = checkpoint.load(folder / RUN / "checkpoints/last.pth").trainer
    # Each earlier phase has one epoch of three steps.
    assert 3 * (state["phase"] + state["epoch"]) + state["step"] == step
    assert not (folder / RUN / "result.json").exists()
    assert run(*RESUME_COMMAND, folder=folder) == 0
    assert_same_run(folder / RUN, uninterrupted_folder / RUN)


@pytest.mark.parametrize(
    "command",
    [RESUME_COMMAND, [*TRAIN_COMMAND, "--overwrite"], [*TRAIN_COMMAND, "--resume", str(RUN / "checkpoints/last.pth")]],
)
def test_a_run_is_trained_by_one_process_at_a_time(
    finished_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(lock, "MAX_WAIT", 0.0)
    with lock.hold_lock(RUN):
        assert f"{RUN}: in use by another process (" in run_refused_command(capsys, *command)
    assert not (RUN / ".lock").exists()
    assert lntl(*command) == 0


@pytest.mark.full
def test_the_erm_run_within_a_run_is_also_locked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run locks RUN/erm while it trains there; if another process has locked RUN/erm, the run is not replaced."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "MAX_WAIT", 0.0)
    phases = {"phases": [{"method": "erm", "epochs": 1}]}
    write_config(tmp_path, training=phases, evaluation={"erm_epochs": 1})
    assert lntl(*TRAIN_COMMAND) == 0
    with lock.hold_lock(RUN / "erm"):
        for command in ([*TRAIN_COMMAND, "--overwrite"], ["train", str(RUN / "erm/config.yaml"), "--overwrite"]):
            assert lntl(*command) == 2
            assert f"{RUN}/erm: in use by another process (" in capsys.readouterr().err
    locks_exist: list[bool] = []
    train = Run.train

    def train_and_check_locks(run: Run, *arguments: Any) -> Any:
        locks_exist.append((run.folder.path / ".lock").exists() and (RUN / ".lock").exists())
        return train(run, *arguments)

    monkeypatch.setattr(Run, "train", train_and_check_locks)
    assert lntl(*TRAIN_COMMAND, "--overwrite") == 0
    assert locks_exist == [True, True]
    assert not list(RUN.rglob(".lock"))


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """The command nohup makes a process ignore SIGHUP."""
    original_handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGTERM)
            assert stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, original_handler)


@pytest.mark.full
def test_a_second_signal_stops_at_once(folder: Path, uninterrupted_folder: Path) -> None:
    two_signals = SignalAtCall(UPDATE_FUNCTION, 8, signal.SIGTERM, times=2)
    assert run(*TRAIN_COMMAND, folder=folder, prepare=two_signals) == 128 + signal.SIGTERM
    assert run(*RESUME_COMMAND, folder=folder) == 0
    assert_same_run(folder / RUN, uninterrupted_folder / RUN)


# fsync is called once per written file: 1 config.yaml, 2 environment.json, 3 last.pth; then per epoch best_model.pth
# (if it is the best), checkpoint_epoch_XX.pth, last.pth and metrics.jsonl; at the end four files in evaluation/ and
# result.json. compute is called once per epoch, summarise twice at the end.
@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("os:fsync", 1),
        pytest.param("os:fsync", 3, marks=pytest.mark.full),
        pytest.param("pathlib:Path.replace", 6, marks=pytest.mark.full),
        ("pathlib:Path.replace", 11),
        pytest.param("pathlib:Path.replace", 13, marks=pytest.mark.full),
        pytest.param("lntl.experiment.run:compute", 3, marks=pytest.mark.full),
        ("lntl.experiment.evaluate:summarise", 2),
    ],
)
def test_a_run_killed_while_it_writes_a_file_or_evaluates_is_resumed(
    folder: Path, uninterrupted_folder: Path, function: str, call: int
) -> None:
    assert run(*TRAIN_COMMAND, folder=folder, prepare=SignalAtCall(function, call, signal.SIGKILL)) == -signal.SIGKILL
    assert run(*RESUME_COMMAND, folder=folder) == 0
    assert_same_run(folder / RUN, uninterrupted_folder / RUN)
    assert not list((folder / RUN).rglob(".*"))  # no temporary file is left


class SlowSteps:
    """Make each step take at least 0.1 s and append the time after it to the file `steps`."""

    def __call__(self) -> None:
        """Slow down the trainer of this process."""
        update = Trainer._update

        def slow_update(trainer: Trainer, batch: Batch) -> None:
            time.sleep(0.1)
            update(trainer, batch)
            with Path("steps").open("a") as file:
                file.write(f"{time.monotonic()}\n")

        Trainer._update = slow_update  # type: ignore[method-assign]


def test_a_kill_within_an_epoch_loses_at_most_the_time_between_two_checkpoints(
    tmp_path: Path, trained_folder: Callable[..., Path]
) -> None:
    sections = {
        "training": {"batch_size": 2, "phases": [{"method": "lntl", "epochs": 1}]},  # 45 steps
        "logging": {"checkpoint_minutes": 1 / 60},
    }
    uninterrupted_folder, last_path = trained_folder(**sections), tmp_path / RUN / "checkpoints/last.pth"
    write_config(tmp_path, **sections)
    process = start_process(*TRAIN_COMMAND, folder=tmp_path, prepare=SlowSteps())
    deadline, save_times = time.monotonic() + 120, set()
    while len(save_times) < 3:  # the first save is at the start, two follow after checkpoint_minutes
        assert time.monotonic() < deadline
        save_times |= {last_path.stat().st_mtime_ns} if last_path.exists() else set()
        time.sleep(0.01)
    time.sleep(0.8)
    kill_time = time.monotonic()
    process.kill()
    assert wait_for_exit_code(process) == -signal.SIGKILL
    times = [float(line) for line in (tmp_path / "steps").read_text().splitlines()]
    state = checkpoint.load(last_path).trainer
    assert state["epoch"] == 0
    assert not (tmp_path / RUN / "metrics.jsonl").exists() or read_metrics(tmp_path / RUN) == []
    assert 3 <= state["step"] <= len(times) < 45
    assert kill_time - times[state["step"] - 1] < 1 + 4  # the interval, plus the time of a write on a busy machine
    assert run(*RESUME_COMMAND, folder=tmp_path) == 0
    assert_same_run(tmp_path / RUN, uninterrupted_folder / RUN)


@pytest.mark.full
def test_a_run_killed_at_twenty_random_moments_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    """Kill and resume a run with an ERM run until it ends; it equals an uninterrupted run. Repeat until 20 kills."""
    uninterrupted_folder, interrupted_folder = tmp_path / "uninterrupted", tmp_path / "interrupted"
    for folder in (uninterrupted_folder, interrupted_folder):
        folder.mkdir()
        write_config(folder, evaluation={"erm_epochs": 1}, logging={"use_tensorboard": True})
    start = time.monotonic()
    assert run(*RESUME_COMMAND, folder=uninterrupted_folder) == 0
    duration, random_delay, kills, is_finished = time.monotonic() - start, random.Random(0), 0, False
    while kills < 20 or not is_finished:
        process = start_process(*RESUME_COMMAND, folder=interrupted_folder)
        process.join(random_delay.uniform(0.1, 0.8) * duration if kills < 20 else None)
        is_finished = process.exitcode is not None
        if not is_finished:
            process.kill()
            kills += 1
        code = wait_for_exit_code(process)
        is_finished = code == 0  # the run may have ended just before the kill
        assert code in (0, -signal.SIGKILL), (interrupted_folder / "stderr").read_text()
        if is_finished:
            assert_same_run(interrupted_folder / RUN, uninterrupted_folder / RUN)
            assert_same_run(interrupted_folder / RUN / "erm", uninterrupted_folder / RUN / "erm")
            shutil.rmtree(interrupted_folder / RUN)


@pytest.mark.full
def test_a_run_stopped_during_its_erm_run_is_resumed(tmp_path: Path) -> None:
    stopped_folder, uninterrupted_folder = tmp_path / "stopped", tmp_path / "uninterrupted"
    for folder in (stopped_folder, uninterrupted_folder):
        folder.mkdir()
        write_config(folder, evaluation={"erm_epochs": 2}, training={"phases": [{"method": "erm", "epochs": 1}]})
    assert run(*TRAIN_COMMAND, folder=uninterrupted_folder) == 0
    assert run(*TRAIN_COMMAND, folder=stopped_folder, prepare=SignalAtCall(UPDATE_FUNCTION, 5, signal.SIGINT)) == 130
    assert run(*RESUME_COMMAND, folder=stopped_folder) == 0
    for name in (RUN, RUN / "erm"):
        assert_same_run(stopped_folder / name, uninterrupted_folder / name)
    erm_files = read_tree(stopped_folder / RUN / "erm")
    assert run(*RESUME_COMMAND, folder=stopped_folder) == 0
    assert read_tree(stopped_folder / RUN / "erm") == erm_files  # it is not trained again


@pytest.mark.full
def test_a_changed_number_of_erm_epochs_trains_the_erm_run_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder, training={"phases": [{"method": "erm", "epochs": 1}]}, evaluation={"metrics": ["accuracy"]})
    monkeypatch.chdir(folder)
    assert lntl(*TRAIN_COMMAND, "evaluation.erm_epochs=1") == 0
    for epochs in (2, 1):
        assert lntl(*RESUME_COMMAND, f"evaluation.erm_epochs={epochs}") == 0
        assert json.loads((RUN / "result.json").read_text())["erm"]["last"]["epoch"] == epochs
        assert len(read_metrics(RUN / "erm")) == epochs
    assert lntl(*RESUME_COMMAND, "evaluation.erm_epochs=1", "evaluation.metrics=[accuracy, unbiased_accuracy]") == 0
    erm_result = json.loads((RUN / "result.json").read_text())["erm"]
    assert erm_result["last"]["test"].keys() == {"accuracy", "unbiased_accuracy"}
    assert lntl(*RESUME_COMMAND, "evaluation.erm_epochs=0") == 0
    assert read_run(RUN).erm is None


def test_a_key_that_is_missing_in_an_older_checkpoint_has_its_default(
    finished_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last_path = RUN / "checkpoints/last.pth"
    content = checkpoint.load(last_path)
    del content.config["training"]["phases"][2]["h_steps"]
    checkpoint.save(last_path, content)
    assert "h_steps is 2, was 1" in run_refused_command(capsys, *RESUME_COMMAND, "training.phases.2.h_steps=2")
    assert lntl(*RESUME_COMMAND) == 0


def test_a_finished_run_is_only_evaluated_again(finished_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files_before = read_tree(finished_folder / RUN / "checkpoints")
    (finished_folder / RUN / "result.json").unlink()
    assert lntl(*RESUME_COMMAND) == 0
    captured = capsys.readouterr()
    assert "lntl, last" in captured.out
    assert "epoch 1" not in captured.err
    files_after = read_tree(finished_folder / RUN / "checkpoints")
    assert files_before.keys() == files_after.keys()
    changed_names = {name for name in files_before if files_before[name] != files_after[name]}
    assert changed_names <= {"last.pth"}  # last.pth may be written again
    result = json.loads((finished_folder / RUN / "result.json").read_text())
    assert result["last"]["epoch"] == 4


def test_resume_auto_starts_a_run_if_there_is_none(folder: Path) -> None:
    assert run(*RESUME_COMMAND, folder=folder) == 0
    assert len(read_metrics(folder / RUN)) == 4


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"new_phases": [{"method": "lntl", "epochs": 1, "mu": 0.2}]}], ids=str
)
def test_a_finished_run_continues_with_more_epochs_or_phases(
    tmp_path: Path, finished_folder: Path, change: dict[str, Any]
) -> None:
    """With a constant learning rate, a resumed run with more epochs equals a run that had them from the start."""
    *earlier_phases, last_phase = TINY_CONFIG["training"]["phases"]
    phases = [*earlier_phases, last_phase | {"epochs": change.get("epochs", 2)}, *change.get("new_phases", [])]
    uninterrupted_folder = tmp_path / "uninterrupted"
    uninterrupted_folder.mkdir()
    for folder, command in ((uninterrupted_folder, TRAIN_COMMAND), (finished_folder, RESUME_COMMAND)):
        write_config(folder, training=TINY_CONFIG["training"] | {"phases": phases})
        assert run(*command, folder=folder) == 0
    for name in ("last.pth", "best_model.pth"):
        expected_checkpoint, resumed_checkpoint = (
            checkpoint.load(folder / RUN / "checkpoints" / name) for folder in (uninterrupted_folder, finished_folder)
        )
        assert_equal(resumed_checkpoint.trainer, expected_checkpoint.trainer)
        assert_equal(
            *(
                [epoch.model_dump() for epoch in content.records]
                for content in (resumed_checkpoint, expected_checkpoint)
            )
        )
    assert len(read_metrics(finished_folder / RUN)) == 5


def test_a_run_with_more_epochs_is_resumed_by_its_config_yaml(finished_folder: Path) -> None:
    assert lntl(*RESUME_COMMAND, "training.phases.2.epochs=3") == 0
    assert lntl("train", str(RUN / "config.yaml"), "--resume", "auto") == 0


def run_refused_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and change no file; return its message."""
    files_before = read_tree(Path())
    capsys.readouterr()
    assert lntl(*arguments) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("Error: ")
    assert read_tree(Path()) == files_before
    return message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_size=16", "training.batch_size is 16, was 32"),
        ("project.seed=1", "project.seed is 1, was 0"),
        ("data.color_var=0.02", "data.color_var is 0.02, was 0.03"),
        ("training.phases.0.epochs=2", "training.phases.0.epochs is 2, was 1"),
        ("training.phases.2.mu=0.5", "training.phases.2.mu is 0.5, was 0.1"),
        ("training.phases.1.method=erm", "training.phases.1.method is 'erm', was 'bias_head'"),
        ("training.ema=null", "training.ema is None, was 0.9"),
        ("training.phases.2.epochs=1", "2 epochs of the last phase are done, more than training.phases.2.epochs = 1"),
    ],
)
def test_a_changed_configuration_is_refused(
    finished_folder: Path, capsys: pytest.CaptureFixture[str], override: str, expected: str
) -> None:
    assert expected in run_refused_command(capsys, *RESUME_COMMAND, override)


@pytest.mark.parametrize(
    "override",
    [
        "logging.log_interval_batches=1",
        "evaluation.batch_size=50",
        "evaluation.metrics=[accuracy]",
        "project.description=again",
        "training.device=auto",
    ],
)
def test_settings_that_do_not_affect_training_may_change(finished_folder: Path, override: str) -> None:
    assert lntl(*RESUME_COMMAND, override) == 0


def test_fewer_phases_are_refused(finished_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(finished_folder, training={"phases": [{"method": "erm", "epochs": 1}]})
    assert "training.phases.1.method" in run_refused_command(capsys, *RESUME_COMMAND)


@pytest.mark.parametrize("path", ["missing.pth", "results/other/checkpoints/last.pth", "results/other", "tiny.yaml/x"])
def test_a_missing_checkpoint_is_an_error_and_starts_no_new_run(
    finished_folder: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert "no such checkpoint" in run_refused_command(capsys, *TRAIN_COMMAND, "--resume", path)


@pytest.mark.parametrize("resume_value", ["auto", str(RUN), str(RUN / "checkpoints/last.pth")])
def test_a_truncated_checkpoint_is_an_error_and_starts_no_new_run(
    finished_folder: Path, capsys: pytest.CaptureFixture[str], resume_value: str
) -> None:
    last_path = RUN / "checkpoints/last.pth"
    last_path.write_bytes(last_path.read_bytes()[:-1000])
    stderr = run_refused_command(capsys, *TRAIN_COMMAND, "--resume", resume_value)
    assert f"{last_path}: not a readable checkpoint" in stderr
    assert f"use another checkpoint from {last_path.parent}" in stderr


def test_a_checkpoint_outside_a_run_folder_is_an_error(
    finished_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(RUN / "checkpoints/last.pth", "last.pth")
    assert "it is not in RUN/checkpoints/" in run_refused_command(capsys, *TRAIN_COMMAND, "--resume", "last.pth")


def test_auto_never_deletes_a_run_without_its_last_checkpoint(
    finished_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (RUN / "checkpoints/last.pth").unlink()
    assert "last.pth" in run_refused_command(capsys, *RESUME_COMMAND)


def test_auto_never_replaces_a_run_that_has_results(finished_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only --overwrite may replace a run whose checkpoints were removed."""
    for path in (RUN / "checkpoints").iterdir():
        path.unlink()
    for command in (RESUME_COMMAND, [*RESUME_COMMAND, "project.seed=7"]):
        message = run_refused_command(capsys, *command)
        assert "last.pth is missing, so the run cannot be resumed, and " in message
        assert "would be lost; replace the run with --overwrite" in message
    for path in RUN.iterdir():
        if path.name not in ("config.yaml", "environment.json", "checkpoints", "result.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "result.json would be lost" in run_refused_command(capsys, *RESUME_COMMAND)  # a single result file is enough


@pytest.mark.parametrize(
    "damage",
    [
        lambda: shutil.copy(RUN / "checkpoints/last.pth", RUN / "checkpoints/checkpoint_epoch_02_copy.pth"),
        lambda: (RUN / "environment.json").write_text(""),
        lambda: (RUN / "metrics.jsonl").write_text("{"),
        lambda: (RUN / "result.json").write_text('{"last": {'),
        lambda: (RUN / "config.yaml").unlink(),
        lambda: (RUN / "evaluation/test.json").write_text("[]"),
    ],
)
def test_a_damaged_file_does_not_stop_a_resumed_run(finished_folder: Path, damage: Callable[[], object]) -> None:
    damage()
    assert lntl(*RESUME_COMMAND) == 0
    assert len(read_metrics(RUN)) == 4


def test_a_log_that_cannot_be_opened_is_an_error(finished_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (RUN / "run.log").unlink()
    (RUN / "run.log").mkdir()
    assert "run.log" in run_refused_command(capsys, *RESUME_COMMAND)


def test_the_erm_run_of_a_renamed_run_stays_in_its_folder(finished_folder: Path) -> None:
    """A resumed run stays in its folder even if the configuration has a new experiment name."""
    write_config(finished_folder, evaluation={"erm_epochs": 1})
    assert lntl(*TRAIN_COMMAND, "--resume", str(RUN), "project.experiment_name=renamed") == 0
    assert [path.name for path in Path("results").iterdir()] == ["tiny"]
