"""The commands of the guide to a user's data, on fewer pictures."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clone import clone, sh
from PIL import Image
from tiny_runs import ROOT

GUIDE = (ROOT / "docs/OWN_DATA.md").read_text(encoding="utf-8")
# What makes a command quick; everything else is as the guide has it.
QUICK = {
    "python make_data.py": "python make_data.py --images 360",
    "lntl train config.yaml": "lntl train config.yaml evaluation.erm_epochs=1 training.phases.0.epochs=1 "
    "training.phases.2.epochs=1",
    "lntl probe results/own_images": "lntl probe results/own_images --seeds 1",
}


def commands() -> list[str]:
    """Return the lines of all ```bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/own_images of a clone, after all commands of the guide."""
    pytest.importorskip("onnxruntime")
    copy = clone(tmp_path_factory.mktemp("guide"))
    script = "\n".join(["set -e", *(QUICK.get(line, line) for line in commands())])
    done = sh(script, copy)
    assert done.returncode == 0, done.stderr
    return copy / "examples/own_images"


def test_the_guide_contains_the_commands_that_this_test_shortens() -> None:
    assert set(QUICK) <= set(commands())


@pytest.mark.full
def test_the_check_finds_the_bias_and_recommends(followed: Path) -> None:
    content = json.loads((followed / "results/checks/own_images/check.json").read_text())
    assert "recommendation" in content
    assert (followed / "results/checks/own_images/index.html").exists()


@pytest.mark.full
def test_names_reach_the_last_report(followed: Path) -> None:
    page = (followed / "results/own_images/report/index.html").read_text(encoding="utf-8")
    card = (followed / "results/own_images/MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("three", "eight", "stripes", "thick"):
        assert name in page
        assert name in card


@pytest.mark.full
def test_every_test_picture_is_predicted(followed: Path) -> None:
    with (followed / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((followed / "data/test").glob("*.png")))
    assert {row["prediction"] for row in rows} <= {"three", "five", "eight"}


@pytest.mark.full
def test_the_onnx_file_predicts_like_lntl_predict(followed: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(followed / "own_images.onnx")
    with (followed / "predictions.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    picture = np.asarray(Image.open(followed / row["path"]).convert("RGB"), dtype=np.float32) / 255
    (probabilities,) = session.run(["probabilities"], {"images": picture.transpose(2, 0, 1)[None]})
    expected = [float(row[f"p_{name}"]) for name in ("eight", "five", "three")]
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)
