"""`lntl data check`: its files, its output and its exit codes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_runs import lntl, write_config

from lntl.reporting.verdict import check_verdict
from lntl.runs.formats import Check


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pets.yaml: 40 images of two classes whose names contain markup of HTML and of the terminal."""
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(0), ["image,label,sky,split"]
    for k in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(f"{k}.png")
        label, sky = ("<i>cat</i>", "[bold]dog")[k % 2], ("day & co", "night|ö")[k // 2 % 2]
        lines.append(f"{k}.png,{label},{sky},{('train', 'val', 'test')[k // 4 % 3]}")
    Path("pets.csv").write_text("\n".join(lines), encoding="utf-8")
    write_config(tmp_path)
    raw = yaml.safe_load(Path("tiny.yaml").read_text())
    raw["data"] = {"name": "table", "path": "pets.csv", "bias": "sky", "split": "split", "size": 8}
    raw["project"]["experiment_name"] = "pets"
    raw["model"] = {"name": "tiny_networks.TinyNetworks"}
    Path("pets.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def read_strict_json(path: Path) -> Any:
    def refuse_constant(constant: str) -> None:
        pytest.fail(f"{constant} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)


def test_data_without_a_problem_give_exit_code_zero(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("data", "check", "pets.yaml") == 0
    stdout = capsys.readouterr().out
    for text in ("[bold]dog", "<i>cat</i>", "night|ö", "Cramér's V", "method: erm", "results/checks/pets/check.json"):
        assert text in stdout
    content = read_strict_json(Path("results/checks/pets/check.json"))
    assert content["trustworthy"]
    assert check_verdict(Check.model_validate(content))[0] == "With care"  # because its groups are small
    page = Path("results/checks/pets/index.html").read_text(encoding="utf-8")
    assert "&lt;i&gt;cat&lt;/i&gt;" in page
    assert "<i>" not in page
    assert content["recommendation"]["title"] in page
    for finding in content["findings"]:
        assert finding["title"] in page


def test_data_without_bias_labels_have_a_page_without_tables_of_the_bias(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lntl("data", "check", "pets.yaml", "data.bias=[]") == 0
    assert "debian, jtt, lff, spectral_decoupling need no bias label" in " ".join(capsys.readouterr().out.split())
    page = Path("results/checks/pets/index.html").read_text(encoding="utf-8")
    assert "no bias labels" in page
    assert ">undefined<" not in page
    assert 'href="#bias"' not in page
    assert 'href="#cells"' not in page


def test_a_problem_gives_exit_code_one_and_the_page_is_written(pets: Path) -> None:
    Path("7.png").write_bytes(b"")
    assert lntl("data", "check", "pets.yaml", "--out", "out") == 1
    content = read_strict_json(Path("out/check.json"))
    assert content["wrong_rows"] == ["line 9: unreadable image 7.png: an empty file"]
    assert "line 9: unreadable image 7.png: an empty file" in Path("out/index.html").read_text()
    assert check_verdict(Check.model_validate(content))[0] == "Not yet"
    assert lntl("data", "check", "pets.yaml", "data.on_error=skip", "--out", "out") == 0
    assert lntl("data", "check", "pets.yaml", "--no-images", "--out", "out") == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        (["pets.yaml", "data.label=skyy"], "no column 'skyy'; did you mean 'sky'?"),
        (["pets.yaml", "--out", "pets.csv"], "name another one with --out"),
        (["pets.yaml", "data.label=one"], "a task needs two classes"),
    ],
)
def test_invalid_arguments_and_data_give_exit_code_two(
    pets: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Path("pets.csv").read_text(encoding="utf-8").splitlines()
    Path("pets.csv").write_text("\n".join([f"{lines[0]},one", *(f"{line},1" for line in lines[1:])]), encoding="utf-8")
    assert lntl("data", "check", *arguments) == 2
    assert expected in capsys.readouterr().err


def test_tables_that_are_too_large_are_not_drawn(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{k % 40}.png,{k // 2 % 3},s{k % 45},{('train', 'val', 'test')[k % 7 % 3]}" for k in range(300)]
    Path("pets.csv").write_text("\n".join(["image,label,sky,split", *lines]))
    assert lntl("data", "check", "pets.yaml", "--no-images") == 0
    stdout = capsys.readouterr().out
    assert "3 x 45 groups are too many to show" in stdout
    n = sum(line.endswith(",train") for line in lines)
    assert f"There are only {n} training rows for 45 values of sky" in stdout
    page = Path("results/checks/pets/index.html").read_text()
    assert "3 classes and 45 values are too many to draw" in page
    assert len(read_strict_json(Path("results/checks/pets/check.json"))["biases"][0]["values"]) == 45
