"""The model card has the numbers of the run's files and lists the measurements that are missing."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from synthetic_runs import make_run, write_image_shift
from tiny_runs import lntl

from lntl.errors import UntrustedError, UserError
from lntl.reporting.pages import write_card, write_report

PERCENTAGE = re.compile(r"(\d+\.\d)\u202f%")


@pytest.fixture
def run(synthetic_runs: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic LNTL run."""
    return Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "lntl"))


def find_row(text: str, name: str) -> str:
    """Return the row of a table that begins with a name."""
    return next(line for line in text.splitlines() if line.startswith(f"| {name}"))


def test_the_card_has_the_numbers_of_the_files(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"sizes": {"train": 54000, "val": 6000, "test": 2000}}))
    assert write_card(run) == run / "MODEL_CARD.md"
    text = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    evaluation, probe = (json.loads((run / name).read_text()) for name in ("evaluation/test.json", "probe.json"))
    accuracy = evaluation["metrics"]["accuracy"]
    numbers = PERCENTAGE.findall(find_row(text, "accuracy:"))
    assert numbers[0] == f"{100 * accuracy['value']:.1f}"
    assert f"({100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}) |" in find_row(text, "accuracy:")
    assert "| 2000 |" in find_row(text, "worst-group accuracy:")
    for group in (*evaluation["by_class"], *evaluation["by_bias"]):
        line = find_row(text, f"{group['name']} |")
        assert f"| {group['n']}" in line
        assert PERCENTAGE.findall(line)[0] == f"{100 * group['value']:.1f}"
    assert f"{100 * probe['chance']['majority']:.1f}\u202f%" in text
    assert f"{100 * probe['leakage']:.1f}\u202f%" in text
    for phrase in (
        result["data"],
        result["selection"],
        "| train | 54000 |",
        "3. lntl, 6 epochs: lam 0.01, mu 1.0 — Learning Not to Learn",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "A processor, 2 of 2 cores",
        "Training took 5.3\u202fmin",
        f'lntl.load("{run}")',
        "Any bias other than the color.",
    ):
        assert phrase in text
    assert "None" not in text
    assert "not known" not in text
    assert not re.search(r"\n\n\n", text)


def test_missing_measurements_are_listed_with_their_commands(run: Path) -> None:
    for name in ("probe.json", "recoloring.json", "environment.json", "evaluation/test.json", "config.yaml"):
        (run / name).unlink()
    (run / "checkpoints").mkdir()
    shutil.rmtree(run / "erm")
    text = write_card(run).read_text(encoding="utf-8")
    section = text.split("## What was not measured")[1].split("\n## ")[0]
    for sentence in (
        f"`lntl eval {run}`",
        f"`lntl probe {run}`",
        "when only the bias of an image changes",
        "Plain training (ERM)",
    ):
        assert sentence in section
    assert "versions and hardware are not known" in text
    assert "phases are not known" in text
    assert "This was not measured" in text
    assert "None" not in text


def test_the_card_and_the_page_name_the_augmentation_and_the_column_of_the_bias(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "probe.json").unlink()
    config["data"] = {"name": "table", "bias": "fur", "flip": True, "crop": "none", "random_colors": 1.0, "rotation": 0}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = write_card(run).read_text(encoding="utf-8")
    assert "Training images are changed at random: flip, random\\_colors 1.0." in text
    assert "Bias: fur, with" in text
    page = write_report([run], run / "report").read_text(encoding="utf-8")
    assert "<dd>flip, random_colors 1.0</dd>" in page
    assert "unlearn the fur?" in page


def test_the_card_of_an_unfinished_run_states_that_it_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    text = write_card(tmp_path).read_text(encoding="utf-8")
    assert "Nothing was measured on the test split." in text
    assert "The data are not known: the run is unfinished." in text
    assert "not known: the run is unfinished |" in find_row(text, "choice of checkpoint")


def test_each_of_several_biases_has_a_table(run: Path) -> None:
    path = run / "evaluation/test.json"
    evaluation = json.loads(path.read_text())
    bias_content = {name: evaluation[name] for name in ("bias_value_names", "metrics", "groups")}
    bias_content["by_bias"] = evaluation["by_bias"][:2]
    path.write_text(json.dumps(evaluation | {"per_bias": {"sky": bias_content, "a|b": bias_content}}))
    text = write_card(run).read_text(encoding="utf-8")
    assert text.count("| crimson |") == 2
    assert "Worst-group accuracy over class and sky: " in text
    assert "| a\\|b | images |" in text


def test_the_code_on_the_card_trusts_a_users_model(run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("name: convnet", "name: my.nets.Net"))
    text = write_card(run, ["my"]).read_text(encoding="utf-8")
    assert f'lntl.load("{run}", trust="my.nets")  #' in text
    assert "--out predictions.csv --trust my.nets\nlntl export" in text
    assert text.endswith("--out model.onnx --trust my.nets\n```")


def test_a_users_method_is_on_the_card_without_running_its_code(tmp_path: Path) -> None:
    make_run(tmp_path / "own", method="nowhere.Mine")
    with pytest.raises(UntrustedError, match=r"own/config\.yaml: it names nowhere\.Mine"):
        write_card(tmp_path / "own")
    text = write_card(tmp_path / "own", ["nowhere"]).read_text(encoding="utf-8")
    # The module does not exist, so the card has no description of the method.
    assert "1. nowhere.Mine, 4 epochs\n" in text


def test_the_command_card_writes_the_card(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("card", str(run)) == 0
    assert capsys.readouterr().out.strip() == str(run / "MODEL_CARD.md")
    with pytest.raises(UserError, match="not a run folder"):
        write_card(tmp_path)
    assert lntl("card", str(tmp_path)) == 2


@pytest.mark.usefixtures("skip_drawing")
def test_the_effect_of_brightness_is_on_the_card_and_the_page(run: Path) -> None:
    for name in ("recoloring.json", "recoloring.npz"):
        (run / name).unlink()
    probe = json.loads((run / "probe.json").read_text())
    (run / "probe.json").write_text(json.dumps(probe | {"recolorable": False}))
    write_card(run)
    text = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Whether predictions change" in text
    write_image_shift(run, probe["epoch"])
    write_card(run)
    text = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- If the brightness of 500 test images is lowered by 0.1, 10.0\u202f% of the predictions change" in text
    assert "Whether predictions change" not in text
    assert not re.search(r"\n\n\n", text)
    page = write_report([run], run / "report").read_text(encoding="utf-8")
    assert "these images cannot be given another color" in page
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert any(label.startswith("Predictions that change with the brightness: 20.0\u202f% at -0.2") for label in labels)
    assert "4 test images with changed brightness, and the predictions." in labels
