"""A user's data, from the file to the evaluation: one or two biases, missing labels and several kinds of methods."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import lntl, read_metrics

from lntl import config as configuration
from lntl.config import Config
from lntl.experiment.build import build
from lntl.types import IGNORE

N = 120
MakeConfig = Callable[..., Config]


@pytest.fixture
def vector_file(tmp_path: Path) -> Path:
    """own.npz: 120 vectors that contain class and bias; one bias value in twelve is missing."""
    k, rng = np.arange(N), np.random.default_rng(0)
    y, sky, age = k % 3, k // 3 % 2, rng.normal(40, 10, N)
    x = np.stack([y + rng.normal(0, 0.1, N), sky, age / 10], axis=1)
    sky = np.where(k % 12 == 5, -1, sky)
    path = tmp_path / "own.npz"
    np.savez(path, x=x, y=y, sky=sky, age=age, y_names=np.array(["cat", "dog", "eel"]))
    return path


BIASES: dict[str, Any] = {"one bias": ["sky"], "two biases": ["sky", {"column": "age", "bins": 3}]}
METHODS = ["erm", "bias_head", "lntl", "bias_product", "reweight", "group_dro", "bias_contrastive", "hsic"]


def make_sections(path: Path, biases: str) -> dict[str, Any]:
    return {
        "data": {"name": "arrays", "path": str(path), "bias": BIASES[biases]},
        "model": {"name": "tiny_networks.TinyNetworks"},
    }


@pytest.fixture
def make_own_config(raw_config: Callable[..., dict[str, Any]], vector_file: Path) -> MakeConfig:
    """A function that makes a configuration on own.npz from a key of BIASES and phases."""

    def make(biases: str, *phases: Any) -> Config:
        return configuration.validate(raw_config(*phases) | make_sections(vector_file, biases), "test")

    return make


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_and_is_evaluated(make_own_config: MakeConfig, method: str, biases: str) -> None:
    experiment = build(make_own_config(biases, method))
    initial_state = {name: value.clone() for name, value in experiment.networks.state_dict().items()}
    (record,) = experiment.trainer
    assert all(np.isfinite(value) for value in record.metrics.values())
    changed_networks = {
        name[0]
        for name, value in experiment.networks.state_dict().items()
        if not torch.equal(value, initial_state[name])
    }
    assert changed_networks == set(experiment.trainer.method.trains)
    p = experiment.predict(experiment.networks, "test")
    assert p.bias_labels.max() == (len(BIASES[biases]) if "h" in experiment.trainer.method.trains else 0)
    assert ((p.group == IGNORE) == (p.bias == IGNORE)).all()
    assert (p.group == IGNORE).any()


@pytest.mark.parametrize("biases", BIASES)
def test_h_learns_a_bias_that_the_vectors_contain(make_own_config: MakeConfig, biases: str) -> None:
    phase = {"method": "lntl", "epochs": 40, "mu": 0.0, "lam": 0.0, "optimizer_h": {"lr": 0.01}}
    experiment = build(make_own_config(biases, phase | {"optimizer_fg": {"lr": 0.01}}))
    *_, last_epoch = experiment.trainer
    assert last_epoch.metrics["train/h_accuracy"] > 0.9
    p = experiment.predict(experiment.networks, "test")
    assert p.correct.double().mean() > 0.9


def test_the_commands_work_from_the_file_to_the_report(
    vector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = raw_config("lntl", "lntl", logging={"output_dir": "results"}) | make_sections(vector_file, "two biases")
    Path("own.yaml").write_text(json.dumps(raw))
    assert lntl("train", "own.yaml") == 0
    run = Path("results/tiny")
    content = json.loads((run / "evaluation/test.json").read_text())
    assert content["class_names"] == ["cat", "dog", "eel"]
    assert len(content["bias_value_names"]) == 6
    assert {name: len(bias["bias_value_names"]) for name, bias in content["per_bias"].items()} == {"sky": 2, "age": 3}
    assert any("have no known bias value" in warning for warning in content["warnings"])
    age, sky = content["per_bias"]["age"], content["per_bias"]["sky"]  # the age is known for every image
    assert age["metrics"]["worst_group_accuracy"]["n"] == sum(row["n"] for row in age["by_bias"]) == content["n"]
    assert not any("no known bias value" in warning for warning in age["warnings"])
    assert sky["metrics"]["worst_group_accuracy"]["n"] < content["n"]
    assert sum(map(sum, content["groups"]["count"])) < content["n"] == sum(map(sum, content["confusion"]))
    result = json.loads((run / "result.json").read_text())
    assert "8.3% of the rows have no sky" in result["data"]
    assert [*result["sizes"]] == ["train", "val", "test"]
    assert result["sizes"]["test"] == content["n"]
    assert sum(result["sizes"].values()) == N
    assert lntl("probe", str(run / "checkpoints/last.pth"), "--seeds", "1") == 0
    probe = json.loads((run / "probe.json").read_text())
    assert probe["bias"] == "sky and age"
    assert set(probe["per_bias"]) == {"sky", "age"}
    assert lntl("report", str(run)) == 0
    page = (run / "report/index.html").read_text()
    assert "Accuracy in % by class and age alone" in page
    assert "Each bias alone: the highest accuracy of a fresh probe" in page
    assert lntl("data", "info", "own.yaml") == 0


@pytest.mark.full
def test_forty_biases_can_be_checked_trained_and_evaluated(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raw_config: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nearly every row has its own combination of values; messages shorten the list of biases."""
    monkeypatch.chdir(tmp_path)
    rng, y = np.random.default_rng(0), np.arange(N) % 2
    biases = {f"bias{k}": np.where(rng.random(N) < 0.7, y, rng.integers(0, 3, N)) for k in range(40)}
    np.savez("own.npz", x=rng.normal(size=(N, 4)), y=y, **biases)
    raw = raw_config("bias_head", "lntl", logging={"output_dir": "results"})
    raw |= {"data": {"name": "arrays", "path": "own.npz", "bias": [*biases]}, "model": {"name": "mlp", "hidden": [8]}}
    Path("own.yaml").write_text(json.dumps(raw | {"evaluation": {"erm_epochs": 0}}))
    assert lntl("data", "check", "own.yaml") in (0, 1)
    assert lntl("train", "own.yaml") == 0
    assert lntl("eval", "results/tiny") == 0
    out, err = capsys.readouterr()
    assert "values of bias0, bias1 and 38 more biases" in out
    assert max(map(len, (out + err).splitlines())) < 1000


def test_brackets_in_the_path_of_data_are_printed(
    vector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("q[/z]").mkdir(parents=True)
    vector_file.rename("q[/z]/own.npz")
    Path("own.yaml").write_text(json.dumps({"data": {"name": "arrays", "path": "q[/z]/own.npz", "bias": "sky"}}))
    assert lntl("data", "info", "own.yaml") == 0
    assert capsys.readouterr().out.startswith("arrays q[/z]/own.npz: 120 rows, ")


TABLE = {"name": "table", "path": "pets.csv", "bias": "sky", "size": 4, "crop": "shift", "flip": True}


def write_pets(folder: Path) -> None:
    """Write 90 small images and pets.csv, one line of which names a missing image."""
    rng = np.random.default_rng(0)
    lines = ["image,label,sky"]
    for k in range(90):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{('cat', 'dog')[k % 2]},{('day', 'night')[k // 2 % 2]}")
    lines[7] = "gone.png,cat,day"
    (folder / "pets.csv").write_text("\n".join(lines))


def test_a_table_with_augmentation_is_resumed_exactly_and_its_wrong_rows_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pets(tmp_path)
    raw = raw_config({"method": "erm", "epochs": 2}, logging={"output_dir": "uninterrupted"})
    raw |= {"data": TABLE | {"on_error": "skip"}, "model": {"name": "tiny_networks.TinyNetworks"}}
    Path("pets.yaml").write_text(json.dumps(raw))
    assert lntl("train", "pets.yaml") == 0
    assert Path("uninterrupted/tiny/skipped_rows.txt").read_text() == "line 8: missing file gone.png\n"
    assert lntl("train", "pets.yaml", "logging.output_dir=resumed", "training.phases.0.epochs=1") == 0
    assert lntl("train", "pets.yaml", "logging.output_dir=resumed", "--resume", "auto") == 0
    assert [line["train/task"] for line in read_metrics(Path("uninterrupted/tiny"))] == [
        line["train/task"] for line in read_metrics(Path("resumed/tiny"))
    ]
    uninterrupted_run, resumed_run = (
        torch.load(f"{name}/tiny/checkpoints/last.pth", weights_only=True) for name in ("uninterrupted", "resumed")
    )
    for name, value in uninterrupted_run["trainer"]["networks"].items():
        assert torch.equal(value, resumed_run["trainer"]["networks"][name]), name


def test_a_wrong_row_stops_the_command_before_the_run_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raw_config: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pets(tmp_path)
    raw = raw_config("erm", logging={"output_dir": "results"}) | {"data": TABLE}
    Path("pets.yaml").write_text(json.dumps(raw))
    assert lntl("train", "pets.yaml") == 2
    assert "1 of 90 rows are wrong" in capsys.readouterr().err
    assert not Path("results").exists()
