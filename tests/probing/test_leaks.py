"""Probes of several biases: each against the same probe asked for by hand, and all of them together."""

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
from lntl.probing.probes import Halves, read
from lntl.types import IGNORE, BiasSpec, DataSpec

N = 150


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]) -> Path:
    """A trained run on vectors with two biases, one of them missing in places, and ERM beside it."""
    monkeypatch.chdir(tmp_path)
    k, random = np.arange(N), np.random.default_rng(0)
    y, sky, age = k % 3, k // 3 % 2, random.normal(40, 10, N)
    x = np.stack([y + random.normal(0, 0.1, N), sky, age / 10], axis=1)
    np.savez(tmp_path / "own.npz", x=x, y=y, sky=np.where(k % 12 == 5, -1, sky), age=age)
    raw = raw_config("lntl", evaluation={"erm_epochs": 1}, logging={"output_dir": "results"})
    raw["data"] = {"name": "arrays", "path": "own.npz", "bias": ["sky", {"column": "age", "bins": 3}]}
    raw["model"] = {"name": "tiny_networks.TinyNetworks"}
    Path("own.yaml").write_text(json.dumps(raw))
    assert lntl("train", "own.yaml") == 0
    return Path("results/tiny")


def test_each_bias_is_probed_as_if_it_were_the_only_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints/last.pth"
    assert lntl("probe", str(path), "--seeds", "2", "--layer", "f") == 0
    shown = capsys.readouterr().out
    found = json.loads((run / "probe.json").read_text(), parse_constant=pytest.fail)
    assert list(found["per_bias"]) == ["sky", "age"]
    built, saved = open_checkpoint(path, None)
    networks, spec = load_networks(built, saved, path), built.data.spec
    batches = list(built.loader("test").batches())
    group, x = torch.cat([b.group for b in batches]), torch.cat([b.x for b in batches])
    known = group != IGNORE
    bias = torch.cat([b.bias for b in batches])[known]  # (n, 2): the labels as the data have them
    z, y = features(networks, [x[known]], "f"), group[known] // spec.num_bias_values
    for number, (name, values) in enumerate((("sky", 2), ("age", 3))):
        halves = Halves(y, bias[:, number], (0, 1))
        rows, one = read("f", z, halves, torch.device("cpu")), found["per_bias"][name]
        assert [(row["probe"], row["values"]) for row in one["probes"]] == [
            (row.probe, list(row.values)) for row in rows
        ]
        assert one["chance"]["majority"] == halves.majority >= 1 / values - 0.05
        assert one["leakage"] == max(row.mean for row in rows)
        assert len(one["reference"]["pixels"]) == len(one["reference"]["erm"]) == len(rows)
        assert f"{name}: accuracy of" in shown
        assert f"{name} alone: " in " ".join(shown.split())
    assert found["per_bias"]["sky"]["reference"]["pixels"][0]["mean"] == 1  # the second number of x
    assert found["leakage"] == max(row["mean"] for row in found["probes"])
    joint = Halves(y, group[known] % spec.num_bias_values, (0, 1))
    rows = read("f", z, joint, torch.device("cpu"))
    assert [row["values"] for row in found["probes"]] == [list(row.values) for row in rows]


def test_combinations_that_never_repeat_leave_each_bias_alone() -> None:
    """Of forty biases, each test image has a combination of its own."""
    bits = torch.arange(20)[:, None] // 2 ** torch.arange(5) % 2
    biases = tuple(BiasSpec(f"b{k}", ("0", "1"), tuple(bits[:, k].tolist())) for k in range(5))
    names = tuple(str(k) for k in range(20))
    spec = DataSpec((3,), 2, 2, (5,), ("cat", "dog"), names, 20, biases=biases)
    halves, warnings = Halves(torch.arange(20) % 2, torch.arange(20), (0,)), list[str]()
    assert list(checkpoint._biases(spec, halves, warnings)) == ["b0", "b1", "b2", "b3", "b4"]
    with pytest.raises(UserError, match="the test set does not vary in its bias"):
        checkpoint._biases(replace(spec, biases=()), halves, warnings)
    once = replace(halves, bias=torch.arange(20) // 2)
    assert next(iter(checkpoint._biases(spec, once, warnings))) == checkpoint._JOINT


def test_a_bias_that_does_not_vary_is_left_out_with_a_warning(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run / "checkpoints/last.pth"
    subject = checkpoint._subject

    def at_night(*arguments: Any) -> Any:
        found, group = subject(*arguments)
        sky = torch.tensor(found.experiment.data.spec.biases[0].value_of_joint)[group % 6]
        night = (sky == 1).nonzero()[:, 0]
        return replace(found, index=found.index[night]), group[night]

    monkeypatch.setattr(checkpoint, "_subject", at_night)
    found = checkpoint.probe_checkpoint(path, ["f"], seeds=1).probe
    assert list(found.per_bias) == ["age"]
    assert any(
        warning.startswith("sky: the test set does not vary in its bias (values there: 1)")
        for warning in found.warnings
    )
