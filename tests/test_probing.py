"""`lntl probe` on a tiny run: the files that it writes, their content, and bad input."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import RUN, lntl, tree

from lntl import experiment
from lntl.data.colored_mnist import ColoredDigits, ColoredMNIST
from lntl.probing import checkpoint as probing
from lntl.runs import checkpoint
from lntl.runs.folder import RunFolder

Capture = pytest.CaptureFixture[str]
BEST = RUN / "checkpoints/best_model.pth"
WRITTEN = {"probe.json", "recoloring.json", "recoloring.npz", "embedding.npz"}


@pytest.fixture(scope="module")
def results(trained: Callable[..., Path]) -> Path:
    """A folder in which tiny.yaml and its ERM run were trained to the end."""
    phases = [{"method": "erm", "epochs": 1}, {"method": "lntl", "epochs": 1}]
    return trained(evaluation={"erm_epochs": 1}, training={"phases": phases})


@pytest.fixture(scope="module")
def probed(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder after `lntl probe`; do not change its files."""
    folder = tmp_path_factory.mktemp("probed") / "run"
    shutil.copytree(results / RUN, folder)
    probing.probe_checkpoint(folder / "checkpoints/best_model.pth", seeds=2)
    return folder


@pytest.fixture
def copied(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of the finished run in the working directory; tests may change it."""
    shutil.copytree(results / RUN, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    return RunFolder(RUN)


def read(path: Path) -> Any:
    """Return a JSON file that must hold no NaN."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_probe_json(probed: Path) -> None:
    found = read(probed / "probe.json")
    assert found["bias"] == "nearest mean colour"
    assert (found["n_train"], found["n_test"], found["seeds"], found["epoch"]) == (50, 50, [0, 1], 2)
    assert found["checkpoint"] == str(probed / "checkpoints/best_model.pth")
    expected = [("f", "linear"), ("f", "mlp"), ("f", "conv"), ("penultimate", "linear"), ("penultimate", "mlp")]
    for rows in (found["probes"], found["reference"]["erm"]):
        assert [(row["layer"], row["probe"]) for row in rows] == expected
    pixels = found["reference"]["pixels"]
    assert [(row["layer"], row["probe"]) for row in pixels] == [("pixels", p) for p in ("linear", "mlp", "conv")]
    for row in found["probes"]:
        assert len(row["values"]) == 2
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["std"] == pytest.approx(abs(row["values"][0] - row["values"][1]) / math.sqrt(2))
    for row in (*found["reference"]["erm"], *pixels):  # with the first seed alone
        assert (row["values"], row["std"]) == ([row["mean"]], None)
    assert found["leakage"] == max(row["mean"] for row in found["probes"])
    assert found["reference"]["erm"] != found["probes"]
    assert found["chance"]["permutation"] < 0.3 > found["chance"]["majority"]
    assert 0 <= found["h_accuracy"] <= 1
    assert 0 < found["h_chance"] < 1
    assert found["seconds"] > 0
    assert found["warnings"] == []


def test_recoloring_files(probed: Path) -> None:
    assert read(probed / "probe.json")["recolorable"]
    found = read(probed / "recoloring.json")
    assert (found["n"], found["epoch"]) == (100, 2)
    assert found["colors"][0] == "crimson"
    for estimate in (found["flip_rate"], found["mean_change"], *found["erm"].values()):
        assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
    assert [row["name"] for row in found["by_color"]] == found["colors"]
    with np.load(probed / "recoloring.npz", allow_pickle=False) as strip:
        x, predicted, y = (strip[name] for name in ("x", "predicted", "y"))
    assert (x.shape, x.dtype) == ((8, 10, 3, 28, 28), np.uint8)
    assert (predicted.shape, predicted.dtype, y.shape, y.dtype) == ((8, 10), np.int64, (8,), np.int64)
    assert np.array_equal(y, np.unique(y))  # eight different digits
    strokes = x.max(axis=2) > 0
    assert (strokes == strokes[:, :1]).all()  # one digit, ten colours
    assert np.array_equal(x[0, 0].max(axis=(1, 2)), [220, 20, 60])


def test_recolouring_against_one_image_at_a_time(probed: Path) -> None:
    path = probed / "checkpoints/best_model.pth"
    saved = checkpoint.load(path)
    built = experiment.build(experiment.evaluate_checkpoint(path).config)
    networks = experiment.load_networks(built, saved, path).eval()
    split, flips, changes = built.data.splits["test"], 0, 0.0
    recolored = [split.recolored(value) for value in range(10)]
    for i in range(100):
        with torch.no_grad():
            p = torch.cat([networks.g(networks.f(part.batch(torch.tensor([i])).x)).softmax(1) for part in recolored])
        flips += len(set(p.argmax(dim=1).tolist())) > 1
        changes += sum(float((row - p.mean(dim=0)).abs().sum()) / 2 for row in p) / 10
    found = read(probed / "recoloring.json")
    assert found["flip_rate"]["value"] == pytest.approx(flips / 100)
    assert found["mean_change"]["value"] == pytest.approx(changes / 100, abs=1e-4)


def test_embedding_file(probed: Path, digits: ColoredMNIST) -> None:
    with np.load(probed / "embedding.npz", allow_pickle=False) as arrays:
        assert {name: (a.shape, str(a.dtype)) for name, a in arrays.items()} == {
            "xy": ((100, 2), "float32"), "y": ((100,), "int64"), "bias": ((100,), "int64"),
        }  # fmt: skip
        test = digits.splits["test"]
        assert np.array_equal(arrays["y"], test.y)
        assert np.array_equal(arrays["bias"], test.group % 10)
        assert np.isfinite(arrays["xy"]).all()


def test_the_command_prints_and_writes_its_results(copied: RunFolder, capsys: Capture) -> None:
    before = tree(RUN)
    assert lntl("probe", str(RUN), "--seeds", "1", "--layer", "g.5", "--layer", "f.rest.0", "--device", "cpu") == 0
    out = capsys.readouterr().out
    found = read(copied.probe)
    assert [row["layer"] for row in found["probes"]] == ["g.5"] * 2 + ["f.rest.0"] * 3
    for row in found["probes"]:
        assert re.search(rf"{re.escape(row['layer'])} +{row['probe']} +{row['mean']:.3f}", out)
        assert row["std"] is None
    assert "±" not in out
    assert "bias" in out
    assert "shown in all 10 colours" in out
    after = tree(RUN)
    assert {name for name in after if before.get(name, ...) != after[name]} == WRITTEN


@pytest.mark.full
def test_probing_twice_gives_equal_results(copied: RunFolder, probed: Path) -> None:
    probing.probe_checkpoint(BEST, seeds=2)
    first, second = (read(path / "probe.json") | {"seconds": 0, "checkpoint": ""} for path in (RUN, probed))
    assert first == second
    for name in ("recoloring.npz", "embedding.npz"):
        with np.load(RUN / name) as ours, np.load(probed / name) as expected:
            assert all(np.array_equal(ours[key], expected[key]) for key in expected)


def test_overwriting_a_run_removes_its_probe_files(copied: RunFolder) -> None:
    for name in WRITTEN:
        (RUN / name).write_text("{}")
    copied.create("", overwrite=True)
    assert not WRITTEN & tree(RUN).keys()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the embedding, for speed."""
    monkeypatch.setattr(probing, "embed", lambda z, seed: torch.zeros(len(z), 2))


def without_recoloring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntl.probing.recoloring.RecolorableSplit", type("OtherData", (), {}))


def as_written(found: probing.Probed) -> dict[str, Any]:
    recoloring = found.recoloring and found.recoloring.model_dump(exclude_unset=True)
    return found.probe.model_dump(exclude_unset=True) | {"recoloring": recoloring}


def probe_linear(**more: Any) -> dict[str, Any]:
    return as_written(probing.probe_checkpoint(BEST, ["penultimate"], seeds=1, **more))


@pytest.mark.usefixtures("quick")
def test_without_recolorable_data_no_recolouring_is_written(copied: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recoloring(monkeypatch)
    assert probe_linear()["recoloring"] is None
    assert not read(copied.probe)["recolorable"]
    assert not copied.recoloring.exists()


@pytest.mark.usefixtures("quick")
def test_a_missing_erm_checkpoint_is_a_warning(copied: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recoloring(monkeypatch)
    shutil.rmtree(RUN / "erm/checkpoints")
    found = probe_linear()
    assert found["reference"]["erm"] is None
    assert found["warnings"] == [f"no ERM beside it: {RUN}/erm/checkpoints has no checkpoint"]


@pytest.mark.usefixtures("quick")
def test_erm_is_probed_at_its_best_checkpoint(copied: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recoloring(monkeypatch)
    erm_folder = RunFolder(RUN / "erm")
    saved = checkpoint.load(erm_folder.last)  # after one epoch this is also the best checkpoint
    best = probe_linear()["reference"]["erm"]
    zero_weights = {name: torch.zeros_like(value) for name, value in saved.trainer["networks"].items()}
    checkpoint.save(
        erm_folder.last, replace(saved, trainer=saved.trainer | {"networks": zero_weights, "average": None})
    )
    assert probe_linear()["reference"]["erm"] == best
    erm_folder.best.unlink()
    assert probe_linear()["reference"]["erm"] != best


@pytest.mark.usefixtures("quick")
def test_the_probe_of_an_erm_run_has_no_h_and_no_erm_reference(copied: RunFolder) -> None:
    found = as_written(probing.probe_checkpoint(RUN / "erm/checkpoints/last.pth", ["penultimate"], seeds=1))
    assert (found["h_accuracy"], found["h_chance"], found["reference"]["erm"]) == (None, None, None)
    assert found["recoloring"]["erm"] is None
    assert (RUN / "erm/probe.json").exists()
    assert not copied.probe.exists()


def change_test(monkeypatch: pytest.MonkeyPatch, keep: Callable[[ColoredDigits], torch.Tensor]) -> None:
    """Make Colored MNIST use only a part of its test set."""
    original = ColoredMNIST.__init__

    def with_part_of_test(self: ColoredMNIST, config: ColoredMNIST.Config) -> None:
        original(self, config)
        test = self.splits["test"]
        self.splits["test"] = test.take(keep(test).nonzero()[:, 0])

    monkeypatch.setattr(ColoredMNIST, "__init__", with_part_of_test)


@pytest.mark.usefixtures("quick")
def test_a_missing_class_and_a_missing_colour_are_warnings(copied: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recoloring(monkeypatch)
    change_test(monkeypatch, lambda test: (test.y != 3) & (test.group % 10 != 0))
    assert probe_linear()["warnings"] == ["no test image of class 3", "no test image of bias value crimson"]


def broken_config(path: Path) -> None:
    saved = checkpoint.load(path)
    checkpoint.save(path, replace(saved, config=saved.config | {"model": {"name": "no_such"}}))


def other_architecture(path: Path) -> None:
    saved = checkpoint.load(path)
    model = {"name": "lenet", "feature_dim": 8, "hidden_dim": 8}
    checkpoint.save(path, replace(saved, config=saved.config | {"model": model}))


def unchanged(path: Path) -> None:
    """Leave the checkpoint as it is."""


@pytest.mark.parametrize(
    ("prepare", "arguments", "expected"),
    [
        (lambda path: shutil.rmtree(path.parent), [], r"tiny: its folder checkpoints/ has no checkpoint"),
        (
            broken_config,
            [],
            r"best_model\.pth \(the configuration inside\): 1 fault\(s\).*\n  model\.name: .*'no_such'",
        ),
        (other_architecture, [], r": its weights do not fit the configured networks"),
        (
            unchanged,
            ["--layer", "nope"],
            r"--layer nope: the networks have no such layer; valid: f, f\.rest, .*, penultim",
        ),
        (unchanged, ["--device", "tpu"], r"training\.device: unknown device 'tpu'"),
        (unchanged, ["--seeds", "0"], r"--seeds.*greater than or equal to 1|--seeds.*x>=1"),
    ],
)
def test_bad_input(
    copied: RunFolder, capsys: Capture, prepare: Callable[[Path], object], arguments: list[str], expected: str
) -> None:
    prepare(BEST)
    before = tree(Path())
    assert lntl("probe", str(RUN), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(expected, captured.err)
    assert "Traceback" not in captured.err
    assert tree(Path()) == before


def test_a_constant_bias_is_an_error(copied: RunFolder, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    change_test(monkeypatch, lambda test: test.group % 10 == 4)
    before = tree(Path())
    assert lntl("probe", str(RUN)) == 2
    assert re.search(r"the bias does not vary in the test set \(its values: orange\)", capsys.readouterr().err)
    assert tree(Path()) == before


def test_a_checkpoint_outside_a_run_folder_is_an_error(copied: RunFolder, capsys: Capture) -> None:
    shutil.copy(BEST, "alone.pth")
    assert lntl("probe", "alone.pth") == 2
    assert "it is not in RUN/checkpoints/" in capsys.readouterr().err
