"""Run the examples in a reduced form; check that their texts quote the numbers that their scripts wrote."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sklearn
from tiny_runs import ROOT

from lntl.errors import UserError

EMBEDDINGS_FOLDER = ROOT / "examples/embeddings"


def load_script(path: Path) -> ModuleType:
    """Import a script as a module."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def embeddings() -> ModuleType:
    return load_script(EMBEDDINGS_FOLDER / "run.py")


@pytest.mark.full
def test_the_embeddings_example_runs_from_images_to_results(
    embeddings: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    with sklearn.config_context():  # the script turns metadata routing on
        embeddings.main(["--images", "300", "--epochs", "1", "--seeds", "1", "--out", str(out)])
    results = json.loads(out.read_text())
    assert [row["method"] for row in results["test"]] == ["erm", results["chosen"]["method"]]
    assert len(results["worst group on val"]) == 3
    output = capsys.readouterr().out
    for row in results["test"]:
        value, low, high = row["accuracy"]
        assert 0 < low <= value <= high < 1
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in output


def test_worst_group_accuracy_equals_slow_loops(embeddings: ModuleType) -> None:
    rng = np.random.default_rng(0)
    y, predicted, bias = rng.integers(0, 3, (3, 200))
    shares = [
        np.mean([p == c for p, label, b in zip(predicted, y, bias, strict=True) if (label, b) == (c, value)])
        for c in range(3)
        for value in range(3)
    ]
    assert embeddings.compute_worst_group(y, predicted, bias) == pytest.approx(min(shares))


def test_the_readme_of_embeddings_quotes_the_measured_numbers() -> None:
    """In all seeds, the interval of the method with bias labels lies above that of plain training."""
    rows = json.loads((EMBEDDINGS_FOLDER / "results.json").read_text())["test"]
    text = (EMBEDDINGS_FOLDER / "README.md").read_text()
    erm_intervals, debiased_intervals = (
        [r["worst_group_accuracy"] for r in rows if (r["method"] == "erm") == erm] for erm in (True, False)
    )
    for value, low, high in (*erm_intervals, *debiased_intervals):
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in text
    assert len(erm_intervals) == len(debiased_intervals) == 5
    assert max(high for _, _, high in erm_intervals) < min(low for _, low, _ in debiased_intervals)


def test_weights_of_the_package_get_the_names_of_timm() -> None:
    import timm

    script = load_script(ROOT / "examples/pretrained_weights/efficientnet_lite0.py")
    timm_weights = timm.create_model(script.ARCH).state_dict()
    package_weights = {get_package_name(key): value for key, value in timm_weights.items()}
    expected = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.2._bn2.bias": "blocks.1.1.bn3.bias",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_bn1.weight": "bn2.weight",
        "_fc.bias": "classifier.bias",
    }
    renamed_weights = script.use_timm_names(package_weights, timm_weights)
    assert renamed_weights.keys() == timm_weights.keys()
    for package_key, timm_key in expected.items():
        assert renamed_weights[timm_key] is package_weights[package_key]
    for invalid_weights in (
        {**package_weights, "_blocks.99._bn0.bias": package_weights["_fc.bias"]},
        {**package_weights, "_fc.bias": package_weights["_fc.weight"]},
    ):
        with pytest.raises(
            UserError, match="the weights do not fit tf_efficientnet_lite0: 1 entries differ, the first"
        ):
            script.use_timm_names(invalid_weights, timm_weights)


def get_package_name(key: str) -> str:
    """Return the package's name of a timm weight; the package numbers its blocks from 0 to 15, not by stage."""
    outer_names = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    if not key.startswith("blocks."):
        layer, parameter = key.split(".")
        return f"{outer_names[layer]}.{parameter}"
    _, stage, block, layer, parameter = key.split(".")
    number = (0, 1, 3, 5, 8, 11, 15)[int(stage)] + int(block)
    if number == 0:
        layers = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    else:
        layers = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
                  "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
    return f"_blocks.{number}.{layers[layer]}.{parameter}"
