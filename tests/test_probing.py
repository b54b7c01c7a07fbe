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
from tiny_runs import RUN, lntl, read_tree

from lntl import experiment
from lntl.data.colored_mnist import ColoredDigits, ColoredMNIST
from lntl.probing import checkpoint as probing
from lntl.runs import checkpoint
from lntl.runs.folder import RunFolder

Capture = pytest.CaptureFixture[str]
BEST_CHECKPOINT = RUN / "checkpoints/best_model.pth"
PROBE_FILES = {"probe.json", "recoloring.json", "recoloring.npz", "embedding.npz"}


@pytest.fixture(scope="module")
def finished_folder(trained_folder: Callable[..., Path]) -> Path:
    """A folder in which tiny.yaml and its ERM run were trained to the end."""
    phases = [{"method": "erm", "epochs": 1}, {"method": "lntl", "epochs": 1}]
    return trained_folder(evaluation={"erm_epochs": 1}, training={"phases": phases})


@pytest.fixture(scope="module")
def probed_folder(finished_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder after `lntl probe`; do not change its files."""
    folder = tmp_path_factory.mktemp("probed") / "run"
    shutil.copytree(finished_folder / RUN, folder)
    probing.probe_checkpoint(folder / "checkpoints/best_model.pth", seeds=2)
    return folder


@pytest.fixture
def run_copy(finished_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of the finished run in the working directory; tests may change it."""
    shutil.copytree(finished_folder / RUN, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    return RunFolder(RUN)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, which must not contain NaN."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_probe_json_has_every_layer_probe_and_reference(probed_folder: Path) -> None:
    content = read_json(probed_folder / "probe.json")
    assert content["bias"] == "nearest mean color"
    assert (content["n_train"], content["n_test"], content["seeds"], content["epoch"]) == (50, 50, [0, 1], 2)
    assert content["checkpoint"] == str(probed_folder / "checkpoints/best_model.pth")
    expected = [("f", "linear"), ("f", "mlp"), ("f", "conv"), ("penultimate", "linear"), ("penultimate", "mlp")]
    for rows in (content["probes"], content["reference"]["erm"]):
        assert [(row["layer"], row["probe"]) for row in rows] == expected
    pixels = content["reference"]["pixels"]
    assert [(row["layer"], row["probe"]) for row in pixels] == [("pixels", p) for p in ("linear", "mlp", "conv")]
    for row in content["probes"]:
        assert len(row["values"]) == 2
        assert row["mean"] == pytest.approx(sum(row["values"]) / 2)
        assert row["std"] == pytest.approx(abs(row["values"][0] - row["values"][1]) / math.sqrt(2))
    for row in (*content["reference"]["erm"], *pixels):  # only with the first seed
        assert (row["values"], row["std"]) == ([row["mean"]], None)
    assert content["leakage"] == max(row["mean"] for row in content["probes"])
    assert content["reference"]["erm"] != content["probes"]
    assert content["chance"]["permutation"] < 0.3 > content["chance"]["majority"]
    assert 0 <= content["h_accuracy"] <= 1
    assert 0 < content["h_chance"] < 1
    assert content["seconds"] > 0
    assert content["warnings"] == []


def test_recoloring_files_have_the_flip_rate_and_eight_digits_in_ten_colors(probed_folder: Path) -> None:
    assert read_json(probed_folder / "probe.json")["recolorable"]
    content = read_json(probed_folder / "recoloring.json")
    assert (content["n"], content["epoch"]) == (100, 2)
    assert content["colors"][0] == "crimson"
    for estimate in (content["flip_rate"], content["mean_change"], *content["erm"].values()):
        assert 0 <= estimate["low"] <= estimate["value"] <= estimate["high"] <= 1
    assert [row["name"] for row in content["by_color"]] == content["colors"]
    with np.load(probed_folder / "recoloring.npz", allow_pickle=False) as arrays:
        x, predicted, y = (arrays[name] for name in ("x", "predicted", "y"))
    assert (x.shape, x.dtype) == ((8, 10, 3, 28, 28), np.uint8)
    assert (predicted.shape, predicted.dtype, y.shape, y.dtype) == ((8, 10), np.int64, (8,), np.int64)
    assert np.array_equal(y, np.unique(y))  # eight different digits
    strokes = x.max(axis=2) > 0
    assert (strokes == strokes[:, :1]).all()  # one digit, ten colors
    assert np.array_equal(x[0, 0].max(axis=(1, 2)), [220, 20, 60])


def test_recoloring_equals_a_loop_over_single_images(probed_folder: Path) -> None:
    path = probed_folder / "checkpoints/best_model.pth"
    saved_checkpoint = checkpoint.load(path)
    rebuilt_experiment = experiment.build(experiment.evaluate_checkpoint(path).config)
    networks = experiment.load_networks(rebuilt_experiment, saved_checkpoint, path).eval()
    split, flips, changes = rebuilt_experiment.data.splits["test"], 0, 0.0
    recolored_splits = [split.recolored(value) for value in range(10)]
    for i in range(100):
        with torch.no_grad():
            p = torch.cat(
                [
                    networks.g(networks.f(recolored_split.batch(torch.tensor([i])).x)).softmax(1)
                    for recolored_split in recolored_splits
                ]
            )
        flips += len(set(p.argmax(dim=1).tolist())) > 1
        changes += sum(float((row - p.mean(dim=0)).abs().sum()) / 2 for row in p) / 10
    content = read_json(probed_folder / "recoloring.json")
    assert content["flip_rate"]["value"] == pytest.approx(flips / 100)
    assert content["mean_change"]["value"] == pytest.approx(changes / 100, abs=1e-4)


def test_the_embedding_file_has_a_point_for_each_test_image(probed_folder: Path, digits: ColoredMNIST) -> None:
    with np.load(probed_folder / "embedding.npz", allow_pickle=False) as arrays:
        assert {name: (a.shape, str(a.dtype)) for name, a in arrays.items()} == {
            "xy": ((100, 2), "float32"), "y": ((100,), "int64"), "bias": ((100,), "int64"),
        }  # fmt: skip
        test = digits.splits["test"]
        assert np.array_equal(arrays["y"], test.y)
        assert np.array_equal(arrays["bias"], test.group % 10)
        assert np.isfinite(arrays["xy"]).all()


def test_the_command_prints_and_writes_its_results(run_copy: RunFolder, capsys: Capture) -> None:
    files_before = read_tree(RUN)
    assert lntl("probe", str(RUN), "--seeds", "1", "--layer", "g.5", "--layer", "f.rest.0", "--device", "cpu") == 0
    out = capsys.readouterr().out
    content = read_json(run_copy.probe)
    assert [row["layer"] for row in content["probes"]] == ["g.5"] * 2 + ["f.rest.0"] * 3
    for row in content["probes"]:
        assert re.search(rf"{re.escape(row['layer'])} +{row['probe']} +{row['mean']:.3f}", out)
        assert row["std"] is None
    assert "±" not in out
    assert "bias" in out
    assert "shown in all 10 colors" in out
    files_after = read_tree(RUN)
    assert {name for name in files_after if files_before.get(name, ...) != files_after[name]} == PROBE_FILES


@pytest.mark.full
def test_a_second_probe_gives_equal_results(run_copy: RunFolder, probed_folder: Path) -> None:
    probing.probe_checkpoint(BEST_CHECKPOINT, seeds=2)
    first_content, second_content = (
        read_json(path / "probe.json") | {"seconds": 0, "checkpoint": ""} for path in (RUN, probed_folder)
    )
    assert first_content == second_content
    for name in ("recoloring.npz", "embedding.npz"):
        with np.load(RUN / name) as arrays, np.load(probed_folder / name) as expected:
            assert all(np.array_equal(arrays[key], expected[key]) for key in expected)


def test_overwriting_a_run_removes_its_probe_files(run_copy: RunFolder) -> None:
    for name in PROBE_FILES:
        (RUN / name).write_text("{}")
    run_copy.create("", overwrite=True)
    assert not PROBE_FILES & read_tree(RUN).keys()


@pytest.fixture
def skip_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the embedding, to save time."""
    monkeypatch.setattr(probing, "embed", lambda z, seed: torch.zeros(len(z), 2))


def disable_recoloring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntl.probing.recoloring.RecolorableSplit", type("OtherData", (), {}))


def get_content(result: probing.ProbeResults) -> dict[str, Any]:
    recoloring = result.recoloring and result.recoloring.model_dump(exclude_unset=True)
    return result.probe.model_dump(exclude_unset=True) | {"recoloring": recoloring}


def probe_penultimate_layer(**options: Any) -> dict[str, Any]:
    return get_content(probing.probe_checkpoint(BEST_CHECKPOINT, ["penultimate"], seeds=1, **options))


@pytest.mark.usefixtures("skip_embedding")
def test_without_recolorable_data_no_recoloring_is_written(
    run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable_recoloring(monkeypatch)
    assert probe_penultimate_layer()["recoloring"] is None
    assert not read_json(run_copy.probe)["recolorable"]
    assert not run_copy.recoloring.exists()


@pytest.mark.usefixtures("skip_embedding")
def test_a_missing_erm_checkpoint_is_a_warning(run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_recoloring(monkeypatch)
    shutil.rmtree(RUN / "erm/checkpoints")
    content = probe_penultimate_layer()
    assert content["reference"]["erm"] is None
    assert content["warnings"] == [f"no comparison with ERM: {RUN}/erm/checkpoints has no checkpoint"]


@pytest.mark.full
@pytest.mark.usefixtures("skip_embedding")
def test_erm_is_probed_at_its_best_checkpoint(run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_recoloring(monkeypatch)
    erm_folder = RunFolder(RUN / "erm")
    last_checkpoint = checkpoint.load(erm_folder.last)  # after one epoch this is also the best checkpoint
    erm_rows = probe_penultimate_layer()["reference"]["erm"]
    zero_weights = {name: torch.zeros_like(value) for name, value in last_checkpoint.trainer["networks"].items()}
    checkpoint.save(
        erm_folder.last,
        replace(last_checkpoint, trainer=last_checkpoint.trainer | {"networks": zero_weights, "average": None}),
    )
    assert probe_penultimate_layer()["reference"]["erm"] == erm_rows
    erm_folder.best.unlink()
    assert probe_penultimate_layer()["reference"]["erm"] != erm_rows


@pytest.mark.usefixtures("skip_embedding")
def test_the_probe_of_a_checkpoint_before_the_first_phase_with_h_has_no_h(
    run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    disable_recoloring(monkeypatch)
    path = RUN / "checkpoints/checkpoint_epoch_01.pth"
    content = get_content(probing.probe_checkpoint(path, ["penultimate"], seeds=1))
    assert (content["h_accuracy"], content["h_chance"]) == (None, None)


@pytest.mark.usefixtures("skip_embedding")
def test_the_probe_of_an_erm_run_has_no_h_and_no_erm_reference(run_copy: RunFolder) -> None:
    content = get_content(probing.probe_checkpoint(RUN / "erm/checkpoints/last.pth", ["penultimate"], seeds=1))
    assert (content["h_accuracy"], content["h_chance"], content["reference"]["erm"]) == (None, None, None)
    assert content["recoloring"]["erm"] is None
    assert (RUN / "erm/probe.json").exists()
    assert not run_copy.probe.exists()


def reduce_test_set(monkeypatch: pytest.MonkeyPatch, is_selected: Callable[[ColoredDigits], torch.Tensor]) -> None:
    """Make Colored MNIST use only the selected examples of its test set."""
    original_init = ColoredMNIST.__init__

    def init_with_selected_test_rows(self: ColoredMNIST, config: ColoredMNIST.Config) -> None:
        original_init(self, config)
        test = self.splits["test"]
        self.splits["test"] = test.take(is_selected(test).nonzero()[:, 0])

    monkeypatch.setattr(ColoredMNIST, "__init__", init_with_selected_test_rows)


@pytest.mark.usefixtures("skip_embedding")
def test_a_missing_class_and_a_missing_color_are_warnings(run_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_recoloring(monkeypatch)
    reduce_test_set(monkeypatch, lambda test: (test.y != 3) & (test.group % 10 != 0))
    assert probe_penultimate_layer()["warnings"] == ["no test image of class 3", "no test image of bias value crimson"]


def write_unknown_model(path: Path) -> None:
    content = checkpoint.load(path)
    checkpoint.save(path, replace(content, config=content.config | {"model": {"name": "no_such"}}))


def write_other_architecture(path: Path) -> None:
    content = checkpoint.load(path)
    model = {"name": "lenet", "feature_dim": 8, "hidden_dim": 8}
    checkpoint.save(path, replace(content, config=content.config | {"model": model}))


def keep_checkpoint(path: Path) -> None:
    """Leave the checkpoint as it is."""


@pytest.mark.parametrize(
    ("prepare", "arguments", "expected"),
    [
        (lambda path: shutil.rmtree(path.parent), [], r"tiny: its folder checkpoints/ has no checkpoint"),
        (
            write_unknown_model,
            [],
            r"best_model\.pth \(the configuration inside\): 1 error.*\n  model\.name: .*'no_such'",
        ),
        (write_other_architecture, [], r": its weights do not fit the configured networks"),
        (
            keep_checkpoint,
            ["--layer", "nope"],
            r"--layer nope: the networks have no such layer; valid: f, f\.rest, .*, penultim",
        ),
        (keep_checkpoint, ["--device", "tpu"], r"training\.device: unknown device 'tpu'"),
        (keep_checkpoint, ["--seeds", "0"], r"--seeds.*greater than or equal to 1|--seeds.*x>=1"),
    ],
)
def test_bad_input_gives_one_sentence_and_changes_no_file(
    run_copy: RunFolder, capsys: Capture, prepare: Callable[[Path], object], arguments: list[str], expected: str
) -> None:
    prepare(BEST_CHECKPOINT)
    files_before = read_tree(Path())
    assert lntl("probe", str(RUN), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(expected, captured.err)
    assert "Traceback" not in captured.err
    assert read_tree(Path()) == files_before


def test_a_constant_bias_is_an_error(run_copy: RunFolder, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    reduce_test_set(monkeypatch, lambda test: test.group % 10 == 4)
    files_before = read_tree(Path())
    assert lntl("probe", str(RUN)) == 2
    assert re.search(r"the bias does not vary in the test set \(its values: orange\)", capsys.readouterr().err)
    assert read_tree(Path()) == files_before


def test_a_checkpoint_outside_a_run_folder_is_an_error(run_copy: RunFolder, capsys: Capture) -> None:
    shutil.copy(BEST_CHECKPOINT, "copy.pth")
    assert lntl("probe", "copy.pth") == 2
    assert "it is not in RUN/checkpoints/" in capsys.readouterr().err
