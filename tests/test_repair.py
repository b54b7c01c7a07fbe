"""`lntl repair`: every command accepts a repaired run, and a refused or failed repair writes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lanes import first_is_fast
from tiny_runs import lntl, read_tree

import lntl as package
from lntl.probing.features import features

SharedFolder = Callable[[str, Callable[[Path], object]], Path]


def write_bar_images(path: Path, has_constant_bias: bool = False) -> None:
    """Write gray images (n, 12, 12): the bar's direction is the class, the background's brightness is the bias.

    has_constant_bias: whether all training images have the same bias value.
    """
    rng = np.random.default_rng(0)
    split_settings = {"train": (200, 0.9), "val": (120, 0.5), "test": (200, 0.5)}
    y = np.concatenate([np.arange(n) % 2 for n, _ in split_settings.values()])
    aligned_shares = np.concatenate([np.full(n, s) for n, s in split_settings.values()])
    sky = np.where(rng.random(len(y)) < aligned_shares, y, 1 - y)
    sky[: split_settings["train"][0] * has_constant_bias] = 1
    x = rng.integers(0, 60, (len(y), 12, 12)) + 120 * sky[:, None, None]
    for image, direction in zip(x, y, strict=True):
        bar = image if direction else image.T
        bar[rng.integers(12)] = rng.integers(60, 250)
    split = np.repeat([*split_settings], [n for n, _ in split_settings.values()])
    np.savez(path, x=x.astype(np.uint8), y=y, sky=sky, split=split)


def write_config(folder: Path, name: str, **sections: Any) -> Path:
    raw = {
        "project": {"experiment_name": name},
        "data": {"name": "arrays", "path": str(folder / "bars.npz"), "split": "split", "bias": ["sky"]},
        "model": {"name": "mlp", "hidden": [32], "head_dim": 16},
        "training": {"device": "cpu", "batch_size": 32, "ema": 0.5, "phases": [{"method": "erm", "epochs": 4}]},
        "logging": {"output_dir": str(folder / "results"), "use_tensorboard": False},
        "evaluation": {"erm_epochs": 1},
    }
    raw = {key: value | sections.get(key, {}) for key, value in raw.items()}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="session")
def runs(shared_folder: SharedFolder) -> Path:
    """A folder with a finished ERM run, results/plain, and its repairs by dfr and leace; do not change its files."""

    def fill(folder: Path) -> None:
        write_bar_images(folder / "bars.npz")
        assert lntl("train", str(write_config(folder, "plain"))) == 0
        for method in ("dfr", "leace"):
            assert lntl("repair", str(folder / "results/plain"), "--method", method) == 0

    return shared_folder("repaired", fill)


@pytest.fixture
def run_copy(runs: Path, tmp_path: Path) -> Path:
    """A copy of the ERM run without its repairs."""
    shutil.copytree(runs / "results/plain", tmp_path / "plain")
    return tmp_path / "plain"


def read_result(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "result.json").read_text())
    return content


@pytest.mark.parametrize("method", ["dfr", "leace"])
def test_a_repaired_run_records_the_checkpoint_it_started_from(runs: Path, method: str) -> None:
    run, base_run = runs / f"results/plain-{method}", runs / "results/plain"
    best_path = str(base_run / "checkpoints/best_model.pth")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["training"]["start_from"] == best_path
    assert [(phase["method"], phase["epochs"]) for phase in config["training"]["phases"]] == [(method, 1)]
    content = read_result(run)
    assert content["method"] == method
    assert content["start_from"] == best_path
    assert f"training began with the networks of {best_path}, chosen with all of val" in content["selection"]
    assert ("dfr is fitted on one half of it" in content["selection"]) == (method == "dfr")
    assert "start_from" not in read_result(base_run)
    last_checkpoint, best_checkpoint = (
        torch.load(run / "checkpoints" / name, weights_only=True) for name in ("last.pth", "best_model.pth")
    )
    original_state = torch.load(best_path, weights_only=True)["trainer"]
    weights = {k.removeprefix("module."): v for k, v in original_state["average"].items() if k.startswith("module.")}
    for state in (last_checkpoint["trainer"]["networks"], best_checkpoint["trainer"]["networks"]):
        prefix = "f.features" if method == "leace" else "f"
        for key, value in weights.items():
            if key.startswith("f."):
                assert torch.equal(state[key.replace("f", prefix, 1)], value), key


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.parametrize("method", first_is_fast(["dfr", "leace"]))
def test_every_command_accepts_a_repaired_run(
    runs: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / f"results/plain-{method}", run)
    images = np.load(runs / "bars.npz")["x"][-20:]
    classifier = package.load(run)
    expected = classifier.predict(images)
    assert lntl("eval", str(run)) == 0, capsys.readouterr().err
    assert lntl("probe", str(run), "--seeds", "1") == 0, capsys.readouterr().err
    assert lntl("report", str(run)) == 0, capsys.readouterr().err
    assert lntl("card", str(run)) == 0, capsys.readouterr().err
    for kind, name in (("safetensors", "m.safetensors"), ("torch_export", "m.pt2")):
        assert lntl("export", str(run), "--format", kind, "--out", str(tmp_path / name)) == 0, capsys.readouterr().err
    torch.testing.assert_close(package.load(tmp_path / "m.safetensors").predict(images), expected)
    report = json.loads((run / "report/report.json").read_text())
    assert report["runs"][0]["method"] == method
    if method == "leace":
        probe = json.loads((run / "probe.json").read_text())
        linear_row = next(row for row in probe["probes"] if (row["layer"], row["probe"]) == ("f", "linear"))
        assert linear_row["mean"] < 0.75  # .99 for plain training


@pytest.mark.full
def test_an_onnx_export_contains_the_eraser(runs: Path, tmp_path: Path) -> None:
    run, out = runs / "results/plain-leace", tmp_path / "m.onnx"
    assert lntl("export", str(run), "--format", "onnx", "--out", str(out)) == 0
    assert out.exists()  # the command compares its probabilities with those of the run


def test_training_with_the_configuration_of_a_repair_gives_the_same_run(runs: Path, tmp_path: Path) -> None:
    run = runs / "results/plain-leace"
    overrides = [f"logging.output_dir={tmp_path}", "project.experiment_name=second"]
    assert lntl("train", str(run / "config.yaml"), *overrides) == 0
    states = [torch.load(r / "checkpoints/last.pth", weights_only=True)["trainer"] for r in (run, tmp_path / "second")]
    for key, value in states[0]["networks"].items():
        assert torch.equal(value, states[1]["networks"][key]), key
    assert read_result(run)["last"]["test"] == read_result(tmp_path / "second")["last"]["test"]
    assert lntl("train", str(run / "config.yaml"), *overrides, "--resume", "auto") == 0


def test_repair_accepts_method_settings_and_an_output_folder(run_copy: Path, tmp_path: Path) -> None:
    command = ["repair", str(run_copy), "--method", "dfr", "rows=train", "draws=2", "--out", str(tmp_path / "mine")]
    assert lntl(*command) == 0
    phase = yaml.safe_load((tmp_path / "mine/config.yaml").read_text())["training"]["phases"][0]
    assert (phase["rows"], phase["draws"]) == ("train", 2)


REFUSED_ARGUMENTS = {
    "existing folder": (["--out", "existing"], "existing: it exists already; name another folder with --out"),
    "unknown setting": (["--method", "leace", "draws=3"], "draws: unknown key"),
    "setting without a value": (["rows"], "write it as key=value"),
    "settings of the repair": (["epochs=5"], "setting epochs: a repair sets it itself; leave it out"),
    "another method": (["method=erm"], "setting method: a repair sets it itself; leave it out"),
    "folder with a space": (
        ["--out", "my run"],
        "my run: the folder of a run needs a name without spaces and slashes that does not begin with a point; name "
        "another folder with --out",
    ),
    "this folder": (["--out", "."], ".: the folder of a run needs a name without spaces"),
}


@pytest.mark.parametrize("case", REFUSED_ARGUMENTS)
def test_a_refused_repair_writes_nothing(
    case: str, run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = REFUSED_ARGUMENTS[case]
    monkeypatch.chdir(tmp_path)
    Path("existing").mkdir()
    files_before = read_tree(tmp_path)
    assert lntl("repair", "plain", "--method", "dfr", *arguments) == 2
    assert message in capsys.readouterr().err
    assert read_tree(tmp_path) == files_before


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ([], "needs bias labels, and no val example has one"),
        (["sky"], "leace: the bias is 1 on every row of train, so there is nothing to erase"),
    ],
)
def test_data_without_two_bias_values_are_refused(
    bias: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bar_images(tmp_path / "bars.npz", has_constant_bias=True)
    config = write_config(
        tmp_path, "blind", data={"bias": bias}, training={"phases": [{"method": "erm", "epochs": 1}]},
        evaluation={"erm_epochs": 0},
    )  # fmt: skip
    assert lntl("train", str(config)) == 0
    files_before = read_tree(tmp_path)
    assert lntl("repair", str(tmp_path / "results/blind"), "--method", "leace" if bias else "dfr") == 2
    assert message in capsys.readouterr().err
    assert read_tree(tmp_path) == files_before


def test_a_failed_repair_removes_its_files(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files_before = read_tree(tmp_path)

    def raise_no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("lntl.experiment.repairs.conclude", raise_no_space)
    assert lntl("repair", str(run_copy), "--method", "dfr") == 2
    assert "No space left" in capsys.readouterr().err
    assert read_tree(tmp_path) == files_before


def test_features_are_computed_after_the_eraser(runs: Path) -> None:
    classifier = package.load(runs / "results/plain-leace")
    x = torch.rand(5, 1, 12, 12)
    z = features(classifier, [x], "f")  # type: ignore[arg-type]
    before_eraser = classifier.f.get_submodule("features")(x)
    before_eraser = classifier.f.get_submodule("hidden")(before_eraser)
    assert not torch.allclose(z, before_eraser)
    torch.testing.assert_close(z, classifier.f.get_submodule("eraser")(before_eraser))
