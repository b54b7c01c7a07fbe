"""A complete run: its files, its best checkpoint and its evaluation."""

import errno
import itertools
import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import RUN, assert_equal, lntl, read_metrics, write_config

from lntl import config as configuration
from lntl import experiment
from lntl.config import Config
from lntl.errors import UserError
from lntl.evaluation.metrics import METRICS
from lntl.evaluation.tally import compute
from lntl.experiment import Experiment, Run
from lntl.runs import checkpoint
from lntl.runs.checkpoint import BackgroundSaver, Checkpoint
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Epoch

METRIC_NAMES = set(METRICS)


@pytest.fixture(scope="module")
def finished_folder(trained_folder: Callable[..., Path]) -> Path:
    """A folder in which tiny.yaml and its ERM run were trained to the end."""
    return trained_folder(evaluation={"erm_epochs": 1}, logging={"use_tensorboard": True})


@pytest.fixture
def finished_run(finished_folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The finished run, with its folder as the working directory; do not change its files."""
    monkeypatch.chdir(finished_folder)
    return RunFolder(RUN)


def train(config: Config) -> Run:
    """Train to the end in this process."""
    run = experiment.start(config)
    for _ in run.train():
        pass
    return run


RUN_FILES = [
    "checkpoints/best_model.pth",
    "checkpoints/checkpoint_epoch_01.pth",
    "checkpoints/last.pth",
    "config.yaml",
    "environment.json",
    "evaluation/test.json",
    "evaluation/test.npz",
    "evaluation/test_last.json",
    "evaluation/test_last.npz",
    "metrics.jsonl",
    "result.json",
    "run.log",
]


def list_files(folder: Path) -> list[str]:
    """Return the paths of all files except those of TensorBoard; assert that TensorBoard has at least one."""
    paths = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert any(p.startswith("tensorboard_logs/events.out.tfevents") for p in paths)
    return [p for p in paths if "tensorboard_logs" not in p]


def test_exactly_the_documented_files_are_written(finished_run: RunFolder) -> None:
    later_checkpoints = [f"checkpoints/checkpoint_epoch_{epoch:02d}.pth" for epoch in (2, 3, 4)]
    assert list_files(finished_run.path) == sorted(
        RUN_FILES + later_checkpoints + [f"erm/{name}" for name in RUN_FILES]
    )


def test_config_yaml_is_the_resolved_configuration(finished_run: RunFolder) -> None:
    config = configuration.read(Path("tiny.yaml"))
    assert configuration.read(finished_run.config) == config
    assert checkpoint.load(finished_run.last).config == config.model_dump()


def test_metrics_jsonl_has_a_line_for_each_epoch(finished_run: RunFolder) -> None:
    records = read_metrics(finished_run.path)
    positions = [tuple(r[k] for k in ("phase", "method", "epoch", "total_epoch", "step")) for r in records]
    assert positions == [(1, "erm", 1, 1, 3), (2, "bias_head", 1, 2, 6), (3, "lntl", 1, 3, 9), (3, "lntl", 2, 4, 12)]
    terms = {"erm": {"task", "lr_f", "lr_g"}, "bias_head": {"bias", "lr_h"}}
    terms["lntl"] = {"task", "mi", "bias", "mu", "h_accuracy", "h_chance", "gradient_ratio", "lr_f", "lr_g", "lr_h"}
    for record in records:
        assert {k.removeprefix("train/") for k in record if k.startswith("train/")} == terms[record["method"]]
        assert {k.removeprefix("val/") for k in record if k.startswith("val/")} == METRIC_NAMES
        assert record["time/seconds"] > 0
        assert record["time/images_per_second"] > 0
        assert all(math.isfinite(v) for v in record.values() if isinstance(v, float))
        assert all(v is not None for k, v in record.items() if not k.startswith("val/"))
    assert checkpoint.load(finished_run.last).records == finished_run.read_metrics()
    assert [epoch.model_dump() for epoch in finished_run.read_metrics()] == records


def test_run_log_has_a_line_for_each_epoch(finished_run: RunFolder) -> None:
    log = finished_run.log.read_text()
    assert f"run {RUN} on cpu, data: rendered from the embedded MNIST strokes" in log
    for epoch, method in enumerate(("erm", "bias_head", "lntl", "lntl"), start=1):
        assert re.search(rf"epoch {epoch}\b.*phase {min(epoch, 3)}\b.*\b{method}\b.*\baccuracy=\d", log)


def test_result_json_has_the_scores_of_last_and_best(finished_run: RunFolder) -> None:
    result = finished_run.read_result()
    assert result is not None
    assert (result.experiment, result.method, result.seed) == ("tiny", "lntl", 0)
    assert "embedded MNIST strokes" in result.data
    for phrase in ("highest accuracy on val", "10 held-out training images, random colors", "epochs of the last phase"):
        assert phrase in result.selection
    best_epoch = max(read_metrics(finished_run.path)[2:], key=lambda record: record["val/accuracy"])["total_epoch"]
    for kind, path, epoch in (("last", finished_run.last, 4), ("best", finished_run.best, best_epoch)):
        scores = getattr(result, kind)
        assert scores.checkpoint == str(path)
        assert scores.epoch == epoch
        assert scores.test.keys() == METRIC_NAMES
        assert all(value is None or 0 <= value <= 1 for value in scores.test.values())
        assert experiment.evaluate_checkpoint(path).scores() == scores
    seconds = sum(record["time/seconds"] for record in read_metrics(finished_run.path))
    assert result.training_seconds == pytest.approx(seconds, abs=0.051)


def test_the_evaluation_is_stored(finished_run: RunFolder) -> None:
    """evaluation/ contains the numbers of result.json, their intervals and tables, and the predictions behind them."""
    result = finished_run.read_result()
    assert result is not None
    for kind, path in (("last", finished_run.last), ("best", finished_run.best)):
        evaluation, evaluation_file = experiment.evaluate_checkpoint(path), finished_run.evaluation_of(path)
        content = json.loads(evaluation_file.read_text())
        assert content == evaluation.measured.model_dump(exclude_unset=True)
        assert (content["checkpoint"], content["epoch"], content["split"]) == (
            str(path),
            getattr(result, kind).epoch,
            "test",
        )
        assert {name: row["value"] for name, row in content["metrics"].items()} == getattr(result, kind).test
        with np.load(evaluation_file.with_suffix(".npz"), allow_pickle=False) as arrays:
            assert {name: (str(a.dtype), a.shape) for name, a in arrays.items()} == {
                "y": ("int64", (100,)), "probabilities": ("float32", (100, 10)), "group": ("int64", (100,)),
                "row": ("int64", (100,)), "bias_hits": ("int64", (100,)), "bias_labels": ("int64", (100,)),
            }  # fmt: skip
            assert (
                np.mean(arrays["probabilities"].argmax(axis=1) == arrays["y"]) == getattr(result, kind).test["accuracy"]
            )
            counts = np.bincount(arrays["group"], minlength=100).reshape(10, 10)
            assert counts.tolist() == content["groups"]["count"]
            assert arrays["row"].tolist() == list(range(100))
            bias_accuracy = arrays["bias_hits"].sum() / arrays["bias_labels"].sum()
            assert bias_accuracy == pytest.approx(getattr(result, kind).test["bias_accuracy"], abs=1e-12)


def test_another_split_is_stored_under_its_own_name(make_config: Callable[..., Config]) -> None:
    run = train(make_config("erm"))
    paths = experiment.evaluate_checkpoint(run.folder.best, "val").write()
    assert [path.name for path in paths] == ["val.json", "val.npz"]
    assert json.loads(paths[0].read_text())["n"] == 10


def test_the_erm_config_differs_only_in_its_phases(finished_run: RunFolder) -> None:
    erm_folder = RunFolder(finished_run.path / "erm")
    result = finished_run.read_result()
    assert result is not None
    assert result.erm == erm_folder.read_result()
    assert [record["method"] for record in read_metrics(erm_folder.path)] == ["erm"]
    config, erm_config = (configuration.read(path).model_dump() for path in (finished_run.config, erm_folder.config))
    assert erm_config["project"].pop("experiment_name") == "erm"
    assert erm_config["logging"].pop("output_dir") == str(finished_run.path)
    assert [config["evaluation"].pop("erm_epochs"), erm_config["evaluation"].pop("erm_epochs")] == [1, 0]
    assert config["training"].pop("phases")[0] == erm_config["training"].pop("phases")[0]
    del config["project"]["experiment_name"], config["logging"]["output_dir"]
    assert erm_config == config
    # the first phase is ERM, too: the same data, seed and order give the same first epoch
    assert_equal(
        checkpoint.load(finished_run.checkpoint(1)).trainer["networks"],
        checkpoint.load(erm_folder.last).trainer["networks"],
    )


def make_epoch(phase: int, number: int, **val: float | None) -> Epoch:
    """Return the record of an epoch with metrics on val."""
    position = {"phase": phase, "method": "erm", "epoch": number, "total_epoch": number}
    return Epoch.model_validate(position | {f"val/{name}": value for name, value in val.items()})


def make_records(*epochs: tuple[int, float]) -> list[Epoch]:
    """Return records of (phase, accuracy)."""
    return [
        make_epoch(phase, i, accuracy=score, f1_score_macro=-score) for i, (phase, score) in enumerate(epochs, start=1)
    ]


@pytest.mark.parametrize(
    ("epochs", "best_epoch"),
    [
        ([(1, 0.9), (2, 0.3), (2, 0.4)], 3),  # only the last phase counts
        ([(1, 0.9), (2, 0.4), (2, 0.4), (2, 0.3)], 2),  # the earliest of equal epochs
        ([(1, 0.9), (2, 0.1), (2, 0.5), (2, 0.2)], 3),
        ([(1, 0.9)], None),  # no epoch of the last phase yet
        ([], None),
    ],
)
def test_the_best_record_is_the_earliest_best_epoch_of_the_last_phase(
    make_config: Callable[..., Config], epochs: list[tuple[int, float]], best_epoch: int | None
) -> None:
    config = make_config("erm", {"method": "lntl", "epochs": 3})
    run = Run(SimpleNamespace(config=config), RunFolder(Path()), make_records(*epochs))  # type: ignore[arg-type]
    assert (run.best_record and run.best_record.total_epoch) == best_epoch


def test_the_configured_metric_chooses_the_best_record(make_config: Callable[..., Config]) -> None:
    config = make_config({"method": "lntl", "epochs": 2}, evaluation={"best_model_metric": "f1_score_macro"})
    run = Run(SimpleNamespace(config=config), RunFolder(Path()), make_records((1, 0.9), (1, 0.3)))  # type: ignore[arg-type]
    assert run.best_record is run.records[1]


@pytest.mark.parametrize(
    ("metric", "values", "best_epoch"),
    [
        ("aligned_accuracy", [None, 0.2, None, 0.4], 4),
        ("aligned_accuracy", [0.9, 0.2, None, 0.4], 1),
        ("aligned_accuracy", [None, None], None),
        ("equalised_odds_gap", [0.5, None, 0.2, 0.3], 3),  # the smallest gap
        ("expected_calibration_error", [0.1, 0.2, 0.1], 1),
    ],
)
def test_the_best_record_is_chosen_if_a_metric_is_undefined_or_lower_is_better(
    make_config: Callable[..., Config], metric: str, values: list[float | None], best_epoch: int | None
) -> None:
    config = make_config({"method": "lntl", "epochs": 4}, evaluation={"best_model_metric": metric})
    epochs = [make_epoch(1, i, **{metric: value}) for i, value in enumerate(values, start=1)]
    run = Run(SimpleNamespace(config=config), RunFolder(Path()), epochs)  # type: ignore[arg-type]
    assert (run.best_record and run.best_record.total_epoch) == best_epoch


def test_a_metric_that_is_undefined_on_val_chooses_no_epoch(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No epoch is the best; the result states this, and no file contains a NaN."""
    monkeypatch.setattr(
        "lntl.experiment.run.compute", lambda *arguments: compute(*arguments) | {"aligned_accuracy": None}
    )
    run = train(make_config("erm", evaluation={"best_model_metric": "aligned_accuracy"}))
    assert not run.folder.best.exists()
    assert read_metrics(run.folder.path)[0]["val/aligned_accuracy"] is None
    assert "NaN" not in run.folder.metrics.read_text()
    assert not math.isnan(read_metrics(run.folder.path)[0]["val/accuracy"])
    result = experiment.conclude(run, None)
    assert "best: the same as last, because aligned_accuracy is undefined on val (10 held-out" in result.selection
    assert result.best == result.last
    assert run.folder.read_result() == result


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", "highest accuracy on val"),
        ("expected_calibration_error", "lowest expected_calibration_error on val"),
    ],
)
def test_the_result_names_the_metric_that_chose_the_best_checkpoint(
    make_config: Callable[..., Config], metric: str, expected: str
) -> None:
    run = train(make_config("erm", evaluation={"best_model_metric": metric}))
    assert f"best: {expected} (" in experiment.conclude(run, None).selection


def test_the_log_and_the_result_count_the_groups_of_val_over_which_the_epoch_is_chosen(
    make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """Val has ten images, so that it lacks most of the groups in the data."""
    with caplog.at_level(logging.WARNING, "lntl"):
        run = train(make_config("erm", evaluation={"best_model_metric": "worst_group_accuracy"}))
    groups = {name: {*split.group.tolist()} for name, split in run.experiment.data.splits.items()}
    count = f"{len(groups['val'])} of {len(set.union(*groups.values()))} groups"
    assert (
        f"val has images of {count} (class and bias value): worst_group_accuracy, by which the epoch is" in caplog.text
    )
    selection = experiment.conclude(run, None).selection
    assert f"best: highest worst_group_accuracy over {count} on val (" in selection


def test_the_last_epoch_is_evaluated_once_if_it_is_the_best(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, splits = train(make_config("erm")), list[str]()
    predict = Experiment.predict
    monkeypatch.setattr(Experiment, "predict", lambda *arguments: (splits.append(arguments[2]), predict(*arguments))[1])
    result = experiment.conclude(run, None)
    assert splits == ["test"]
    assert (result.best.test, result.best.epoch) == (result.last.test, result.last.epoch)
    best_content, last_content = (
        json.loads(run.folder.evaluation_of(path).read_text()) for path in (run.folder.best, run.folder.last)
    )
    assert (best_content.pop("checkpoint"), last_content.pop("checkpoint")) == (
        str(run.folder.best),
        str(run.folder.last),
    )
    assert best_content == last_content


def test_without_a_best_checkpoint_the_result_uses_the_last(make_config: Callable[..., Config]) -> None:
    run = train(make_config("erm"))
    run.folder.best.unlink()
    result = experiment.conclude(run, None)
    assert "best: the same as last, because the checkpoint of epoch 1, the best on val, is missing" in result.selection
    assert result.best == result.last


def test_a_run_resumed_with_more_epochs_is_not_finished(make_config: Callable[..., Config]) -> None:
    run = train(make_config("erm"))
    experiment.conclude(run, None)
    experiment.resume(run.experiment.config, run.folder.last)
    assert run.folder.result.exists()
    experiment.resume(make_config({"method": "erm", "epochs": 2}), run.folder.last)
    assert not run.folder.result.exists()


def test_the_best_checkpoint_contains_the_best_epoch(make_config: Callable[..., Config]) -> None:
    run = train(make_config({"method": "erm", "epochs": 4}, project={"seed": 3}))
    assert run.best_record is not None
    best_epoch = run.best_record.total_epoch
    best_checkpoint = checkpoint.load(run.folder.best)
    assert best_checkpoint.records == run.records[:best_epoch]
    assert_equal(best_checkpoint.trainer, checkpoint.load(run.folder.checkpoint(best_epoch)).trainer)


def test_the_metric_that_chooses_the_best_epoch_is_always_measured(make_config: Callable[..., Config]) -> None:
    try:
        config = make_config("erm", evaluation={"metrics": ["f1_score_macro"]})
    except UserError:
        return  # a refusal is correct, too
    assert train(config).best_record is not None


def test_the_trainer_without_a_run_gives_the_same_weights(make_config: Callable[..., Config]) -> None:
    """Evaluation, saving, logging and the logging interval do not change the weights."""
    config = make_config("erm", "bias_head", "lntl", training={"batch_size": 32, "ema": 0.9})
    run = train(config)
    reference = experiment.build(config)
    reference.trainer.log_interval = 1000
    for _ in reference.trainer:
        pass
    assert_equal(dict(run.experiment.networks.state_dict()), dict(reference.networks.state_dict()))
    assert_equal(run.experiment.trainer.evaluated.state_dict(), reference.trainer.evaluated.state_dict())


def test_checkpoints_are_written_at_an_interval_and_at_the_end(make_config: Callable[..., Config]) -> None:
    run = train(make_config({"method": "erm", "epochs": 5}, logging={"checkpoint_interval_epochs": 2}))
    names = sorted(p.name for p in run.folder.checkpoints.iterdir())
    assert names == ["best_model.pth", *(f"checkpoint_epoch_0{n}.pth" for n in (2, 4, 5)), "last.pth"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by a second whenever it is read: once after each epoch, once per step."""
    monkeypatch.setattr("lntl.experiment.run.monotonic", itertools.count().__next__)


@pytest.mark.usefixtures("clock")
def test_last_pth_is_also_saved_by_time_within_an_epoch(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is measured from the previous save; an epoch has 9 steps and ends with a save."""
    config = make_config({"method": "erm", "epochs": 2}, training={"batch_size": 10})
    saved_steps: list[int] = []
    save = BackgroundSaver.save

    def save_and_record(saver: BackgroundSaver, path: Path, content: Checkpoint) -> None:
        save(saver, path, content)
        saver.wait()  # a slow disk may be busy when the next save is due
        state = checkpoint.load(path).trainer
        saved_steps.append(9 * state["epoch"] + state["step"])

    with monkeypatch.context() as patch:
        patch.setattr(BackgroundSaver, "save", save_and_record)
        logging = config.logging.model_copy(update={"checkpoint_minutes": 4 / 60})
        run = train(config.model_copy(update={"logging": logging}))
    assert saved_steps == [4, 8, 9 + 4, 9 + 8]
    reference = experiment.build(config)
    for _ in reference.trainer:
        pass
    assert_equal(run.experiment.trainer.state_dict(), reference.trainer.state_dict())


@pytest.mark.usefixtures("clock")
def test_a_save_by_time_that_fails_stops_the_run(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = experiment.start(make_config("erm", logging={"checkpoint_minutes": 0.01}))
    saved_bytes = run.folder.last.read_bytes()
    monkeypatch.setattr("os.fsync", raise_no_space)
    with pytest.raises(UserError, match=r"last\.pth: cannot write it: No space left on device"):
        list(run.train())
    assert run.folder.last.read_bytes() == saved_bytes
    assert not list(run.folder.checkpoints.glob(".*"))


def raise_no_space(_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def write_altered_checkpoint(
    source: Path, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> Path:
    """Write a copy of a checkpoint after calling `change(config, trainer_state)`; return its path."""
    content = checkpoint.load(source)
    change(content.config, content.trainer)
    checkpoint.save(folder / "altered.pth", content)
    return folder / "altered.pth"


def set_to_zero(weights: dict[str, Any]) -> None:
    """Set all weights to zero."""
    for tensor in weights.values():
        tensor.zero_()


def test_the_averaged_weights_are_evaluated(finished_run: RunFolder, tmp_path: Path) -> None:
    result = finished_run.read_result()
    assert result is not None
    path_of_zero_weights = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: set_to_zero(state["networks"])
    )
    assert experiment.evaluate_checkpoint(path_of_zero_weights).scores().test == result.last.test
    path_of_zero_average = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: set_to_zero(state["average"])
    )
    assert experiment.evaluate_checkpoint(path_of_zero_average).scores().test != result.last.test


def test_without_an_average_the_last_weights_are_evaluated(make_config: Callable[..., Config], tmp_path: Path) -> None:
    run = train(make_config("erm", training={"ema": None}))
    assert checkpoint.load(run.folder.last).trainer["average"] is None
    predictions = run.experiment.predict(run.experiment.networks, "test")
    expected_scores = compute(predictions, run.experiment.config.evaluation.metrics)
    assert experiment.evaluate_checkpoint(run.folder.last).scores().test == expected_scores


def test_a_checkpoint_of_another_architecture_is_refused(finished_run: RunFolder, tmp_path: Path) -> None:
    path = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: config.update(model={"name": "lenet"})
    )
    with pytest.raises(UserError, match=r"altered\.pth: its weights do not fit the configured networks") as error:
        experiment.evaluate_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_with_an_unknown_key_is_refused(finished_run: RunFolder, tmp_path: Path) -> None:
    path = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: config["training"].update(dropped_key=1)
    )
    with pytest.raises(UserError, match=r"(?s)altered\.pth \(the configuration inside\).*training\.dropped_key"):
        experiment.evaluate_checkpoint(path)


@pytest.mark.parametrize("config", [3, {}, {"training": 3}, {"project": {}, "training": None}])
def test_a_checkpoint_without_a_valid_configuration_is_refused(
    finished_run: RunFolder, tmp_path: Path, config: Any
) -> None:
    content = checkpoint.load(finished_run.last)
    checkpoint.save(tmp_path / "invalid.pth", replace(content, config=config))
    for device in (None, "cpu"):
        with pytest.raises(UserError, match=r"invalid\.pth \(the configuration inside\): \d+ error"):
            experiment.evaluate_checkpoint(tmp_path / "invalid.pth", device=device)


def test_a_checkpoint_without_networks_is_refused(finished_run: RunFolder, tmp_path: Path) -> None:
    path = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: state.update(networks={}, average=None)
    )
    with pytest.raises(UserError, match=r"altered\.pth: its weights do not fit"):
        experiment.evaluate_checkpoint(path)


def test_the_device_of_the_checkpoint_can_be_replaced(finished_run: RunFolder, tmp_path: Path) -> None:
    path = write_altered_checkpoint(
        finished_run.last, tmp_path, lambda config, state: config["training"].update(device="cuda:77")
    )
    with pytest.raises(UserError, match=r"cuda:77 is not available"):
        experiment.evaluate_checkpoint(path)
    result = finished_run.read_result()
    assert result is not None
    assert experiment.evaluate_checkpoint(path, device="cpu").scores().test == result.last.test


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    diverging_phase = {"method": "lntl", "epochs": 1, "optimizer_fg": {"name": "sgd", "lr": 1e30}}
    phases = {"phases": [{"method": "erm", "epochs": 1}, diverging_phase]}
    write_config(tmp_path, training=phases)
    assert lntl("train", "tiny.yaml") == 2
    stderr = capsys.readouterr().err.splitlines()[-1]
    for phrase in ("Error: the loss is not finite at step 2 of epoch 1 in phase 2 (lntl): ", "task = ", f"{RUN}/check"):
        assert phrase in stderr
    last_checkpoint = checkpoint.load(RUN / "checkpoints" / "last.pth")
    assert len(last_checkpoint.records) == 1
    assert all(tensor.isfinite().all() for tensor in last_checkpoint.trainer["networks"].values())
    assert json.loads((RUN / "metrics.jsonl").read_text())["method"] == "erm"


def test_a_run_depends_only_on_its_configuration(make_config: Callable[..., Config]) -> None:
    """The same configuration gives the same run twice, also after another run in the same process."""
    config = make_config("lntl")
    torch.manual_seed(1)
    first_run = train(config)
    torch.manual_seed(2)
    second_run = experiment.start(config, overwrite=True)
    for _ in second_run.train():
        pass
    assert_equal(*([epoch.model_dump() for epoch in run.records] for run in (first_run, second_run)))


def test_a_run_resumed_from_an_earlier_epoch_forgets_the_best_checkpoint_of_later_epochs(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.2, 0.9, 0.1])
    monkeypatch.setattr("lntl.experiment.run.compute", lambda *_: {"accuracy": next(scores)})
    config = make_config({"method": "erm", "epochs": 3})
    run = train(config)
    resumed_run = experiment.resume(config, run.folder.checkpoint(2))
    for _ in resumed_run.train():
        pass
    assert [record.metrics["val/accuracy"] for record in resumed_run.records] == [0.1, 0.2, 0.1]
    assert len(checkpoint.load(run.folder.best).records) == 2


def test_the_chance_accuracy_of_h_includes_a_prediction_from_the_class(make_config: Callable[..., Config]) -> None:
    run = experiment.start(make_config("erm", data={"color_var": 1e-6}))
    chance, class_chance = run._bias_chance
    assert 0.1 < chance < 0.5
    assert class_chance > 0.99


@pytest.mark.parametrize(
    "phase", [{"method": "lntl"}, {"method": "lntl", "updates": "alternating"}, {"method": "blind_eye"}]
)
def test_the_accuracy_of_h_is_logged_beside_chance(
    make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture, phase: dict[str, Any]
) -> None:
    caplog.set_level("INFO")
    run = train(make_config("erm", phase))
    erm_metrics, phase_metrics = (record.metrics for record in run.records)
    assert "train/h_chance" not in erm_metrics
    assert 0 < phase_metrics["train/h_accuracy"] < 1
    assert phase_metrics["train/h_chance"] == run._bias_chance[0]
    assert f"h_chance={run._bias_chance[0]:.4f}" in caplog.text


def test_an_h_with_uniform_predictions_under_blind_eye_is_reported(
    make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    rates = {"optimizer_fg": {"lr": 0.01}, "optimizer_h": {"lr": 1e-9}}
    train(make_config({"method": "blind_eye", "alpha": 100.0, "epochs": 4, **rates}))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[-1].startswith("the adversary is dead: h is at chance on the training data")
    assert "its prediction is almost uniform" in warnings[-1]


def test_problems_of_the_adversary_are_reported(
    make_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    """An h that barely learns is reported; methods without h give no warning."""
    dead_phase = {"method": "lntl", "epochs": 1, "mu": 0.0, "lam": 0.0, "optimizer_h": {"lr": 1e-9}}
    run = train(make_config("erm", dead_phase))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("the adversary is dead: h is at chance on the training data")
    bias = run.experiment.data.splits["train"].batch(torch.arange(90)).bias
    majority_share = 0.0
    for channel in range(3):
        values = [v for v in bias[:, channel].flatten().tolist() if v >= 0]
        majority_share += max(values.count(v) for v in set(values)) / len(values) / 3
    assert f"chance {majority_share:.1%}" in warnings[0]
