"""The examples, in a reduced form, and that what their texts say is what their scripts wrote."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sklearn
from tiny_runs import ROOT

EMBEDDINGS = ROOT / "examples/embeddings"


@pytest.fixture
def embeddings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embeddings_run", EMBEDDINGS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_embeddings_from_pictures_to_results(
    embeddings: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    with sklearn.config_context():  # the script turns metadata routing on
        embeddings.main(["--images", "300", "--epochs", "1", "--seeds", "1", "--out", str(out)])
    found = json.loads(out.read_text())
    assert [row["method"] for row in found["test"]] == ["erm", found["chosen"]["method"]]
    assert len(found["worst group on val"]) == 3
    told = capsys.readouterr().out
    for row in found["test"]:
        value, low, high = row["accuracy"]
        assert 0 < low <= value <= high < 1
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in told


def test_the_worst_group_is_that_of_slow_loops(embeddings: ModuleType) -> None:
    random = np.random.default_rng(0)
    y, predicted, bias = random.integers(0, 3, (3, 200))
    shares = [
        np.mean([p == c for p, label, b in zip(predicted, y, bias, strict=True) if (label, b) == (c, value)])
        for c in range(3)
        for value in range(3)
    ]
    assert embeddings.worst_group(y, predicted, bias) == pytest.approx(min(shares))


def test_the_readme_of_embeddings_shows_what_was_measured() -> None:
    """The method that is told the bias is better than plain training, outside the intervals of all seeds."""
    rows = json.loads((EMBEDDINGS / "results.json").read_text())["test"]
    told = (EMBEDDINGS / "README.md").read_text()
    plain, debiased = (
        [r["worst_group_accuracy"] for r in rows if (r["method"] == "erm") == erm] for erm in (True, False)
    )
    for value, low, high in (*plain, *debiased):
        assert f"{value:.3f} ({low:.3f} to {high:.3f})" in told
    assert len(plain) == len(debiased) == 5
    assert max(high for _, _, high in plain) < min(low for _, low, _ in debiased)
