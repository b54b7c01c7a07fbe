"""Probes of each of several biases and of their combination, compared with probes computed directly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import lntl

from lntl.errors import UserError
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.probing import checkpoint
from lntl.probing.features import features
from lntl.probing.probes import Halves, probe_layer
from lntl.types import IGNORE, BiasSpec, DataSpec

N = 150


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]) -> Path:
    """A trained run on vectors with two biases, one of them unknown for some rows, and its ERM run."""
    monkeypatch.chdir(tmp_path)
    k, rng = np.arange(N), np.random.default_rng(0)
    y, sky, age = k % 3, k // 3 % 2, rng.normal(40, 10, N)
    x = np.stack([y + rng.normal(0, 0.1, N), sky, age / 10], axis=1)
    np.savez(tmp_path / "own.npz", x=x, y=y, sky=np.where(k % 12 == 5, -1, sky), age=age)
    raw = raw_config("lntl", evaluation={"erm_epochs": 1}, logging={"output_dir": "results"})
    raw["data"] = {"name": "arrays", "path": "own.npz", "bias": ["sky", {"column": "age", "bins": 3}]}
    raw["model"] = {"name": "tiny_networks.TinyNetworks"}
    Path("own.yaml").write_text(json.dumps(raw))
    assert lntl("train", "own.yaml") == 0
    return Path("results/tiny")


@pytest.mark.full
def test_the_probes_of_each_bias_equal_those_of_a_single_bias(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints/last.pth"
    assert lntl("probe", str(path), "--seeds", "2", "--layer", "f") == 0
    output = capsys.readouterr().out
    result = json.loads((run / "probe.json").read_text(), parse_constant=pytest.fail)
    assert list(result["per_bias"]) == ["sky", "age"]
    experiment, content = open_checkpoint(path, None)
    networks, spec = load_networks(experiment, content, path), experiment.data.spec
    batches = list(experiment.loader("test").batches())
    group, x = torch.cat([b.group for b in batches]), torch.cat([b.x for b in batches])
    is_known = group != IGNORE
    bias = torch.cat([b.bias for b in batches])[is_known]  # (n, 2), the labels of both biases
    z, y = features(networks, [x[is_known]], "f"), group[is_known] // spec.num_bias_values
    for number, (name, values) in enumerate((("sky", 2), ("age", 3))):
        halves = Halves(y, bias[:, number], (0, 1))
        rows, bias_result = probe_layer("f", z, halves, torch.device("cpu")), result["per_bias"][name]
        assert [(row["probe"], row["values"]) for row in bias_result["probes"]] == [
            (row.probe, list(row.values)) for row in rows
        ]
        assert bias_result["chance"]["majority"] == halves.majority >= 1 / values - 0.05
        assert bias_result["leakage"] == max(row.mean for row in rows)
        assert len(bias_result["reference"]["pixels"]) == len(bias_result["reference"]["erm"]) == len(rows)
        assert f"{name}: accuracy of" in output
        assert f"{name} alone: " in " ".join(output.split())
    assert result["per_bias"]["sky"]["reference"]["pixels"][0]["mean"] == 1  # x[:, 1] is the sky
    assert result["leakage"] == max(row["mean"] for row in result["probes"])
    joint_halves = Halves(y, group[is_known] % spec.num_bias_values, (0, 1))
    rows = probe_layer("f", z, joint_halves, torch.device("cpu"))
    assert [row["values"] for row in result["probes"]] == [list(row.values) for row in rows]


def test_only_single_biases_are_probed_if_every_combination_is_unique() -> None:
    """With many biases, each test image may have its own combination."""
    bits = torch.arange(20)[:, None] // 2 ** torch.arange(5) % 2
    biases = tuple(BiasSpec(f"b{k}", ("0", "1"), tuple(bits[:, k].tolist())) for k in range(5))
    names = tuple(str(k) for k in range(20))
    spec = DataSpec((3,), 2, 2, (5,), ("cat", "dog"), names, 20, biases=biases)
    halves, warnings = Halves(torch.arange(20) % 2, torch.arange(20), (0,)), list[str]()
    assert list(checkpoint._collect_labels(spec, halves, warnings)) == ["b0", "b1", "b2", "b3", "b4"]
    with pytest.raises(UserError, match="the bias does not vary in the test set"):
        checkpoint._collect_labels(replace(spec, biases=()), halves, warnings)
    repeated_halves = replace(halves, bias=torch.arange(20) // 2)
    assert next(iter(checkpoint._collect_labels(spec, repeated_halves, warnings))) == checkpoint._JOINT


def test_a_bias_that_does_not_vary_is_left_out_with_a_warning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "checkpoints/last.pth"
    original_subject = checkpoint._open_subject

    def select_night(*arguments: Any) -> Any:
        subject, group = original_subject(*arguments)
        sky = torch.tensor(subject.experiment.data.spec.biases[0].value_of_joint)[group % 6]
        night_rows = (sky == 1).nonzero()[:, 0]
        return replace(subject, index=subject.index[night_rows]), group[night_rows]

    monkeypatch.setattr(checkpoint, "_open_subject", select_night)
    result = checkpoint.probe_checkpoint(path, ["f"], seeds=1).probe
    assert list(result.per_bias) == ["age"]
    assert any(
        warning.startswith("sky: the bias does not vary in the test set (its values: 1)") for warning in result.warnings
    )
