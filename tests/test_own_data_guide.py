"""The commands of the guide docs/OWN_DATA.md, with fewer images and epochs."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from checkout_copy import copy_checkout, run_shell
from PIL import Image
from tiny_runs import ROOT

GUIDE = (ROOT / "docs/OWN_DATA.md").read_text(encoding="utf-8")
# Commands of the guide and the shorter commands that the test runs instead; other commands are not changed.
SHORT_COMMANDS = {
    "python make_data.py": "python make_data.py --images 360",
    "lntl train config.yaml": "lntl train config.yaml evaluation.erm_epochs=1 training.phases.0.epochs=1 "
    "training.phases.2.epochs=1",
    "lntl probe results/own_images": "lntl probe results/own_images --seeds 1",
}


def find_commands() -> list[str]:
    """Return the lines of all ```bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return "".join(blocks).splitlines()


@pytest.fixture(scope="module")
def guide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder examples/own_images of a copy of the checkout, after all commands of the guide."""
    pytest.importorskip("onnxruntime")
    repository = copy_checkout(tmp_path_factory.mktemp("guide"))
    script = "\n".join(["set -e", *(SHORT_COMMANDS.get(line, line) for line in find_commands())])
    process = run_shell(script, repository)
    assert process.returncode == 0, process.stderr
    return repository / "examples/own_images"


def test_the_guide_contains_the_commands_that_this_test_shortens() -> None:
    assert set(SHORT_COMMANDS) <= set(find_commands())


@pytest.mark.full
def test_the_check_writes_a_recommendation(guide_folder: Path) -> None:
    content = json.loads((guide_folder / "results/checks/own_images/check.json").read_text())
    assert "recommendation" in content
    assert (guide_folder / "results/checks/own_images/index.html").exists()


@pytest.mark.full
def test_class_and_bias_names_are_on_the_report_and_the_card(guide_folder: Path) -> None:
    page = (guide_folder / "results/own_images/report/index.html").read_text(encoding="utf-8")
    card = (guide_folder / "results/own_images/MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("three", "eight", "stripes", "thick"):
        assert name in page
        assert name in card


@pytest.mark.full
def test_every_test_image_is_predicted(guide_folder: Path) -> None:
    with (guide_folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((guide_folder / "data/test").glob("*.png")))
    assert {row["prediction"] for row in rows} <= {"three", "five", "eight"}


@pytest.mark.full
def test_the_onnx_file_and_lntl_predict_give_equal_probabilities(guide_folder: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(guide_folder / "own_images.onnx")
    with (guide_folder / "predictions.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    image = np.asarray(Image.open(guide_folder / row["path"]).convert("RGB"), dtype=np.float32) / 255
    (probabilities,) = session.run(["probabilities"], {"images": image.transpose(2, 0, 1)[None]})
    expected = [float(row[f"p_{name}"]) for name in ("eight", "five", "three")]
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)
