"""`lntl tune`: search spaces, trials, seeds, pruning, kills, storages and files."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import TINY_CONFIG, lntl
from tiny_runs import run as run_process

from lntl import config as configuration
from lntl.errors import Interrupted, UserError
from lntl.experiment import Experiment
from lntl.runs.formats import Trial
from lntl.tuning.space import check_space, choose_objective, read_space

optuna = pytest.importorskip("optuna")

from lntl.tuning import study as studies  # noqa: E402 - the import needs Optuna
from lntl.tuning.study import Tuning  # noqa: E402

LR = "training.optimizer_fg.lr"
SPACE: dict[str, Any] = {
    "objective": "accuracy",
    "space": {LR: {"float": [1e-4, 1e-2], "log": True}, "training.ema": {"choice": [None, 0.9]}},
}
State = optuna.trial.TrialState


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a configuration of two phases and a search space."""
    monkeypatch.chdir(tmp_path)
    write_yaml(
        "tiny.yaml",
        TINY_CONFIG | {"training": {**TINY_CONFIG["training"], "phases": [{"method": "erm", "epochs": 1}] * 2}},
    )
    write_yaml("space.yaml", SPACE)
    return tmp_path


def write_yaml(name: str, content: object) -> Path:
    Path(name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return Path(name)


def make_tuning(**settings: Any) -> Tuning:
    return Tuning("tiny.yaml", settings.pop("overrides", []), read_space(Path("space.yaml")), **settings)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], int]]:
    """Replace training by a score computed from lr and seed; return the list of (values, seed) of each call."""
    calls: list[tuple[dict[str, Any], int]] = []

    def train(_: Tuning, __: Any, values: dict[str, Any], seed: int, *arguments: object) -> float:
        calls.append((values, seed))
        return float(values[LR] + seed)

    monkeypatch.setattr(studies, "_train", train)
    return calls


def make_trials(count: int, **settings: Any) -> Any:
    """Make the trials of a study up to `count`; return the study."""
    tuning = make_tuning(**settings)
    study = studies.open_study(tuning)
    studies.queue_trials(study, count)
    studies.run_trials(tuning, study)
    return study


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training.optimiser_fg.lr": {"float": [0, 1]}}, "training.optimiser_fg: .*did you mean 'optimizer_fg'"),
        ({LR: {"float": [-1.0, 1.0]}}, rf"{LR} = -1.0 is not possible: {LR}: -1.0 should be greater than 0"),
        ({"training.batch_size": {"choice": [32, "many"]}}, "batch_size = 'many' is not possible"),
        ({LR: {"float": [1.0, 0.1]}}, "should be a range whose first number is lower than its second"),
        ({LR: {"float": [0, 0.1], "log": True}}, "should be a range above 0, because log is set"),
        ({LR: {"float": [0.1, 1.0], "int": [1, 2]}}, r"should be one of float: \[low, high\], int: "),
        ({LR: {"choise": [1, 2]}}, "choise: unknown key; did you mean 'choice'"),
        ({"logging.output_dir": {"choice": ["a", "b"]}}, "a space has keys of data, model, training"),
        (
            {"training.adversarial_lambda": {"float": [0.1, 0.2]}},
            "adversarial_lambda: two of its values give the same training",
        ),
        ({"training.devices": {"int": [1, 2]}}, "devices: two of its values give the same training"),
    ],
)
def test_an_invalid_search_space_gives_one_sentence(folder: Path, space: dict[str, Any], message: str) -> None:
    path = write_yaml("space.yaml", SPACE | {"space": space})
    with pytest.raises(UserError, match=message) as error:
        check_space(path, read_space(path), "tiny.yaml", [])
    assert str(error.value).startswith("space.yaml: ")


def test_a_trial_takes_one_process(folder: Path) -> None:
    with pytest.raises(UserError, match=r"a trial is trained by one process; .* several trials at once with --jobs"):
        make_tuning(overrides=["training.devices=2"])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("test/accuracy", "is on the test set, which must not be used to choose anything"),
        ("acuracy", "did you mean 'accuracy'"),
    ],
)
def test_only_a_metric_on_val_can_be_the_objective(folder: Path, objective: str, message: str) -> None:
    space = read_space(write_yaml("space.yaml", SPACE | {"objective": objective}))
    with pytest.raises(UserError, match=message):
        choose_objective(space, configuration.read("tiny.yaml"))
    space = read_space(write_yaml("space.yaml", SPACE | {"objective": "val/accuracy"}))
    assert choose_objective(space, configuration.read("tiny.yaml")) == "accuracy"


def test_the_command_tune_makes_trials_the_best_configuration_and_a_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, predict = [], Experiment.predict

    def record_split(self: Experiment, networks: Any, split: str, epochs: float) -> Any:
        splits.append(split)
        return predict(self, networks, split, epochs)

    monkeypatch.setattr(Experiment, "predict", record_split)
    assert lntl("tune", "tiny.yaml", "space.yaml", "--trials", "3") == 0
    assert set(splits) == {"val"}  # the test set is not used
    out, study_folder = capsys.readouterr().out, Path("results/space")
    assert "lntl train results/space/best.yaml trains it" in out
    lines = [Trial.model_validate_json(line) for line in (study_folder / "trials.jsonl").read_text().splitlines()]
    assert [line.state for line in lines] == ["complete"] * 3
    assert [line.epochs for line in lines] == [1] * 3  # the number of epochs of the last phase
    best_line = max(lines, key=lambda line: (line.value, -line.number))
    config = configuration.read(study_folder / "best.yaml")
    assert config.training.optimizer_fg.lr == best_line.values[LR]
    assert config.project.experiment_name == "space-best"
    assert not list((study_folder / "trials").iterdir())
    page = (study_folder / "index.html").read_text()
    assert f"Trial {best_line.number}:" in page
    assert "<svg" in page
    assert "</html>" in page
    assert (study_folder / "history.png").read_bytes().startswith(b"\x89PNG")
    assert lntl("tune", "tiny.yaml", "space.yaml", "--trials", "3") == 0
    assert "0 of 3 trials remain" in capsys.readouterr().out


def test_a_trial_is_pruned_only_in_the_last_phase(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)
    study = make_trials(1, overrides=["training.phases.1.epochs=3"])
    assert study.trials[0].state == State.PRUNED
    assert list(study.trials[0].intermediate_values) == [1]


def test_the_value_of_a_trial_is_the_mean_over_its_seeds(
    folder: Path, scores: list[tuple[dict[str, Any], int]]
) -> None:
    study = make_trials(1, seeds=3, overrides=["project.seed=4"])
    assert [seed for _, seed in scores] == [4, 5, 6]
    (trial,) = study.trials
    assert trial.value == pytest.approx(trial.params[LR] + 5)
    (line,) = studies.summarise(make_tuning(seeds=3, overrides=["project.seed=4"]), study).trials
    assert line.value == pytest.approx(sum(line.scores) / 3)


@pytest.mark.parametrize("storage", ["stopped.journal", pytest.param("sqlite:///stopped.db", marks=pytest.mark.full)])
def test_a_stopped_study_continues_with_the_same_values(
    folder: Path, scores: list[tuple[dict[str, Any], int]], storage: str
) -> None:
    make_trials(12, storage="uninterrupted.journal")
    expected_values = [values for values, _ in scores]
    scores.clear()
    make_trials(5, storage=storage)
    make_trials(12, storage=storage)
    # The values are equal also after ten trials, when the sampler is no longer random.
    assert [values for values, _ in scores] == expected_values


def test_trials_of_killed_processes_are_queued_again(folder: Path, scores: list[tuple[dict[str, Any], int]]) -> None:
    tuning = make_tuning()
    study = studies.open_study(tuning)
    assert studies.queue_trials(study, 3) == 3
    # The process of the first trial still runs; those of the other two have ended.
    for is_alive, pid in ((True, os.getpid()), (False, 2**22 + 1), (False, None)):
        trial = study.ask()
        trial.suggest_float(LR, 1e-4, 1e-2, log=True)
        trial.set_user_attr("host", studies.socket.gethostname() if pid else "other host")
        trial.set_user_attr("pid", pid)
        trial.set_user_attr("alive", time.time() if is_alive or pid else time.time() - 10_000)
    killed_rates = [trial.params[LR] for trial in study.trials[1:]]
    reopened_study = studies.open_study(tuning)
    assert studies.queue_trials(reopened_study, 3) == 2
    assert [trial.state for trial in reopened_study.trials[:3]] == [State.RUNNING, State.FAIL, State.FAIL]
    studies.run_trials(tuning, reopened_study)
    assert [values[LR] for values, _ in scores] == killed_rates
    assert [line.number for line in studies.summarise(tuning, reopened_study).trials] == [0, 3, 4]


def test_a_stopped_trial_is_queued_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_interrupted(*_: object) -> float:
        raise Interrupted("stopped")

    monkeypatch.setattr(studies, "_train", raise_interrupted)
    with pytest.raises(Interrupted):
        make_trials(2)
    study = studies.open_study(make_tuning())
    assert [trial.state for trial in study.trials] == [State.FAIL, State.WAITING, State.WAITING]


def test_a_trial_that_diverges_fails_and_the_study_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = [studies.DeadEndError("training diverged"), 0.5]

    def train(*_: object) -> float:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return float(result)

    monkeypatch.setattr(studies, "_train", train)
    summary = studies.summarise(make_tuning(), make_trials(2))
    assert [(line.state, line.error) for line in summary.trials] == [("failed", "training diverged"), ("complete", "")]
    assert summary.best == 1


def test_a_storage_that_does_not_answer_gives_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "_STORAGE_TIMEOUT", 0.1)
    monkeypatch.setattr(studies, "_open_storage", lambda target: time.sleep(2))
    url = "postgresql://someone:secret@192.0.2.1/studies"
    with pytest.raises(UserError, match=r"^postgresql://\.\.\.@192.0.2.1/studies: .* does not answer within 0.1 s"):
        studies.open_study(make_tuning(storage=url))


@pytest.mark.parametrize("storage", ["sqlite:////nonexistent/a.db", "nosuch://host/studies", "/nonexistent/a.journal"])
def test_a_storage_that_cannot_be_opened_gives_one_sentence(folder: Path, storage: str) -> None:
    with pytest.raises(UserError, match=rf"^{storage}: the storage cannot be used: .*; name a file") as error:
        studies.open_study(make_tuning(storage=storage))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", ["5", "[]", '"x"', '{"op_code": 99, "worker_id": "x"}'])
def test_a_journal_of_another_program_gives_one_sentence(
    folder: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.journal").write_text(f"{line}\n")
    message = (
        r"^a\.journal: the storage cannot be used: its content is damaged, or written by another program; name a file"
    )
    with pytest.raises(UserError, match=message):
        studies.open_study(make_tuning(storage="a.journal"))
    assert capfd.readouterr().err == ""


DAMAGED_JOURNALS = {
    "score out of range": (r'"values":\[[^\]]+\]', '"values":[1e308]', "trial 0 is damaged .its score is 1e.308"),
    "no score": (r'"values":\[[^\]]+\]', '"values":null', "trial 0 is damaged .its score is None"),
    "text as score": (r'"values":\[[^\]]+\]', '"values":["a"]', "trial 0 is damaged .value: Input should be a valid"),
    "text as seconds": (r'"seconds":[0-9.]+', '"seconds":"x"', "trial 0 is damaged .seconds: Input should be a valid"),
    "value out of range": (
        r'"param_value_internal":[0-9.e-]+(?=,"distribution":"[^}]{,30}FloatDistribution)',
        '"param_value_internal":1e9',
        f"trial 0 is damaged .'{LR}' is 1000000000.0, which is not in the space",
    ),
    "another key": (
        f'"param_name":"{LR}"',
        '"param_name":"model.name"',
        "'model.name' is .*, which is not in the space",
    ),
    "another direction": (
        r'"directions":\[2\]',
        '"directions":[1]',
        "another configuration, space, objective or number",
    ),
    "two objectives": (
        r'"directions":\[2\]',
        '"directions":[2,2]',
        "another configuration, space, objective or number",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_JOURNALS)
def test_damaged_trials_and_another_direction_give_one_sentence(
    folder: Path, scores: list[tuple[dict[str, Any], int]], case: str
) -> None:
    """With another direction, the worst trial would be called the best."""
    pattern, replacement, message = DAMAGED_JOURNALS[case]
    make_trials(2)
    journal = make_tuning().folder / "study.journal"
    journal.write_text(re.sub(pattern, replacement, journal.read_text()))
    with pytest.raises(UserError, match=f"^{journal}: .*{message}") as error:
        studies.open_study(make_tuning())
    assert "\n" not in str(error.value)


def test_a_storage_has_one_study_per_name(folder: Path, scores: list[tuple[dict[str, Any], int]]) -> None:
    make_trials(1)
    make_trials(2)
    with pytest.raises(UserError, match="its study space has another configuration, space, objective or number of"):
        make_trials(1, seeds=2)


def test_without_optuna_the_command_tune_gives_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "lntl.tuning.study")
    monkeypatch.delattr("lntl.tuning.study")
    assert lntl("tune", "tiny.yaml", "space.yaml") == 2
    assert "pip install 'lntl[tune]'" in capsys.readouterr().err


@pytest.mark.full
def test_a_killed_study_continues_in_two_processes(folder: Path) -> None:
    command = ("tune", "tiny.yaml", "space.yaml", "--trials", "4")
    assert run_process(*command, folder=folder, prepare=kill_in_the_second_trial) == -signal.SIGKILL
    assert run_process(*command, "--jobs", "2", folder=folder) == 0
    lines = [json.loads(line) for line in Path("results/space/trials.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["complete"] * 4
    assert [line["number"] for line in lines] == [0, 2, 3, 4]  # trial 1 was killed; trial 4 has its values


def kill_in_the_second_trial() -> None:
    original_train: Callable[..., float] = studies._train

    def train(tuning: Tuning, trial: Any, *arguments: Any) -> float:
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original_train(tuning, trial, *arguments)

    studies._train = train


def test_the_page_of_a_study_has_figures_of_history_and_importance(folder: Path, scores: Sequence[object]) -> None:
    from lntl.reporting.pages import write_study

    tuning = make_tuning()
    summary = studies.summarise(tuning, make_trials(6))
    assert summary.importance.keys() == SPACE["space"].keys()
    assert sum(summary.importance.values()) == pytest.approx(1)
    paths = write_study(summary, "", tuning.folder)
    assert [path.name for path in paths] == ["index.html", "history.png", "importance.png"]
    page = paths[0].read_text()
    assert "importance of" not in page
    assert ">null<" in page  # as in YAML
    assert ">None<" not in page
