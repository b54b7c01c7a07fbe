"""Data without bias labels: `bias: []` in every data set, and methods that need no bias labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lanes import first_is_fast
from PIL import Image
from tiny_runs import lntl

from lntl import config as configuration
from lntl import data as data_sets
from lntl.types import IGNORE

N = 60
DATA_SECTIONS: dict[str, dict[str, Any]] = {
    "vectors": {"name": "arrays", "path": "vectors.npz"},
    "images": {"name": "arrays", "path": "images.npz"},
    "table": {"name": "table", "path": "pets.csv", "size": 8},
    "folders": {"name": "folders", "root": "pets", "levels": ["label"], "size": 8},
    "colored_mnist": {"name": "colored_mnist", "path": "none", "max_images": 300},
    "biased_mnist": {"name": "biased_mnist", "max_images": 300},
    "two colors": {"name": "biased_mnist", "max_images": 300, "foreground_correlation": 0.9},
    "lff_colored_mnist": {"name": "lff_colored_mnist", "max_images": 300},
}


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with arrays, a table and folders of images."""
    monkeypatch.chdir(tmp_path)
    rng, y = np.random.default_rng(0), np.arange(N) % 2
    np.savez("vectors.npz", x=rng.normal(size=(N, 4)), y=y)
    np.savez("images.npz", x=rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8), y=y)
    lines = ["image,label"]
    for k in range(N):
        path = Path("pets") / ("cat", "dog")[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        lines.append(f"{path},{path.parent.name}")
    Path("pets.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("kind", DATA_SECTIONS)
@pytest.mark.parametrize("bias", ["data.bias=[]", "data.bias=null"])
def test_every_data_set_accepts_an_empty_bias(kind: str, bias: str) -> None:
    Path("a.yaml").write_text(json.dumps({"data": DATA_SECTIONS[kind]}))
    settings = configuration.read_for_data(Path("a.yaml"), [bias]).data
    data = data_sets.load(settings.name, settings)
    spec = data.spec
    assert (spec.bias_shape, spec.num_bins, spec.num_bias_values) == ((), 1, 1)
    assert (spec.bias_value_names, spec.aligned, spec.biases) == (("unknown",), (), ())
    for split in data.splits.values():
        index = torch.arange(min(9, len(split)))
        batch = split.augmented(3).batch(index)
        assert batch.bias.tolist() == batch.group.tolist() == [IGNORE] * len(index)
        assert split.bias_labels(index).tolist() == [IGNORE] * len(index)
        assert (split.group == IGNORE).all()
        assert batch.bias_features.shape == (len(index), 1)
        assert not batch.bias_features.any()


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.parametrize("kind", first_is_fast(["folders", "vectors", "biased_mnist"]))
def test_a_run_without_a_bias_is_checked_trained_and_reported(
    kind: str, raw_config: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_config("jtt", logging={"output_dir": "results"})
    raw |= {"data": DATA_SECTIONS[kind] | {"bias": []}, "model": {"name": "tiny_networks.TinyNetworks"}}
    raw["evaluation"] = {"best_model_metric": "accuracy", "erm_epochs": 0}
    Path("a.yaml").write_text(json.dumps(raw))
    assert lntl("data", "check", "a.yaml") in (0, 1)
    assert lntl("train", "a.yaml") == 0
    assert lntl("report", "results/tiny") == 0
    capsys.readouterr()
    assert lntl("train", "a.yaml", "--overwrite", "training.phases.0.method=lntl") == 2
    assert "lntl needs bias labels, and no training example has one; set data.bias" in capsys.readouterr().err
