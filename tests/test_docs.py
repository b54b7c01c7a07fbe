"""The documentation: its examples run, and its API pages have every public name."""

import importlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from jinja2 import ChoiceLoader, DictLoader, Environment, PackageLoader
from synthetic_runs import make_run
from tiny_runs import ROOT, lntl

from lntl import plugins
from lntl.cli import app, data_make
from lntl.evaluation.metrics import METRICS, CellNames
from lntl.probing.probes import PROBES
from lntl.reporting.pages import write_report

EXAMPLES = dict(
    re.findall(r'^```\w+ title="(\w+\.\w+)"\n(.*?)^```', (ROOT / "docs/extending.md").read_text("utf-8"), re.M | re.S)
)
# Modules whose public names must all be documented.
PUBLIC_MODULES = (
    "lntl",
    "lntl.erasure",
    "lntl.errors",
    "lntl.evaluation.metrics",
    "lntl.experiment",
    "lntl.methods.base",
    "lntl.ops",
)
PUBLIC_MODULES += ("lntl.plugins", "lntl.sklearn", "lntl.training.trainer", "lntl.types")


@pytest.fixture
def example_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples of docs/extending.md as files that can be imported, in the working directory."""
    for name, code in EXAMPLES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_method_the_model_and_the_data_set_of_the_page_train_together(
    example_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "project": {"experiment_name": "own"},
        "data": {"name": "my_data.Bars", "images": 100},
        "model": {"name": "my_model.Small"},
        "training": {
            "device": "cpu",
            "phases": [
                {"method": "my_method.LogitPenalty", "epochs": 1, "alpha": 0.1},
                {"method": "bias_head", "epochs": 1},
                {"method": "lntl", "epochs": 1},
            ],
        },
        "evaluation": {"erm_epochs": 0},
    }
    (example_folder / "own.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert lntl("train", "own.yaml") == 0, capsys.readouterr().err
    trust = [word for module in ("my_data", "my_model", "my_method") for word in ("--trust", module)]
    assert lntl("eval", "results/own", *trust) == 0, capsys.readouterr().err


def test_the_metric_of_the_page_is_computed(example_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntl.evaluation.metrics.METRICS", METRICS | {})
    metric = runpy.run_path("metric.py")["METRICS"]["best_group_accuracy"]
    tally = SimpleNamespace(count=np.array([[4.0, 2.0]]), right=np.array([[3.0, 1.0]]))  # two groups
    assert metric.function(tally) == pytest.approx([0.75])
    assert metric.images(tally) == 6
    assert metric.undefined(tally, CellNames(("cat",), ("day", "night"))) == "no image has a known bias value"


def test_the_probe_of_the_page_predicts_the_nearest_mean(example_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntl.probing.probes.PROBES", PROBES | {})
    probe = runpy.run_path("probe.py")["PROBES"]["nearest_mean"]
    train, bias = torch.tensor([[0.0], [1.0], [9.0], [10.0]]), torch.tensor([3, 3, 5, 5])
    assert probe(train, bias, torch.tensor([[2.0], [8.0]]), 0, torch.device("cpu")).tolist() == [3, 5]


def test_the_maker_of_the_page_returns_a_table(example_folder: Path) -> None:
    (example_folder / "labels.csv").write_text("image,label,place,split\na.png,cat,indoors,train\n")
    table = runpy.run_path("maker.py")["make"](example_folder)
    assert (table.columns["place"], table.label, table.bias) == (["indoors"], "label", "place")


def test_the_data_command_of_the_page_writes_the_table(
    example_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_make.app, "registered_commands", [*data_make.app.registered_commands])
    rows = [f"{split}.png,cat,indoors,{split}" for split in ("train", "val", "test")]
    (example_folder / "labels.csv").write_text("\n".join(["image,label,place,split", *rows]))
    for split in ("train", "val", "test"):
        (example_folder / f"{split}.png").touch()
    runpy.run_path("make_command.py")
    assert lntl("data", "make", "my_scenes", ".", "scenes.csv") == 0, capsys.readouterr().err
    assert (example_folder / "scenes.csv").read_text().split()[1:] == rows


@pytest.mark.full
def test_the_report_section_of_the_page_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_loader = PackageLoader("lntl.reporting")
    next_heading = '{{ heading("making"'
    page = package_loader.get_source(Environment(), "run.html")[0].replace(
        next_heading, EXAMPLES["section.html"] + next_heading
    )
    template_loader = ChoiceLoader([DictLoader({"run.html": page}), package_loader])
    monkeypatch.setattr("lntl.reporting.pages.PackageLoader", lambda name: template_loader)
    page_file = write_report([make_run(tmp_path / "run")], tmp_path / "report")
    assert "threads.</p>" in page_file.read_text("utf-8")


def test_the_command_of_the_page_prints_the_size(
    example_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
    runpy.run_path("command.py")
    (example_folder / "run").mkdir()
    (example_folder / "run/a").write_text("12345")
    assert lntl("size", "run") == 0
    assert capsys.readouterr().out.strip() == "5"


def test_every_example_of_the_page_is_tested() -> None:
    plug_ins = {"my_method.py", "my_model.py", "my_data.py"}
    other_files = {"maker.py", "make_command.py", "metric.py", "probe.py", "section.html", "command.py"}
    assert {*EXAMPLES} == plug_ins | other_files


def test_every_file_that_the_page_names_exists() -> None:
    text = (ROOT / "docs/extending.md").read_text("utf-8")
    for name in re.findall(r"`((?:src/lntl|docs|tests)/[\w/]+(?:\.\w+)?)`", text):
        if "NAME" not in name and "my_" not in name:
            assert (ROOT / name).exists(), name


@pytest.mark.full
def test_the_training_loop_of_the_page_reaches_its_accuracies(tmp_path: Path) -> None:
    text = (ROOT / "docs/own_loop.md").read_text("utf-8")
    (code,) = re.findall(r'^```python title="own_loop.py"\n(.*?)^```', text, re.M | re.S)
    (tmp_path / "own_loop.py").write_text(code, "utf-8")
    accuracy = runpy.run_path(str(tmp_path / "own_loop.py"))["accuracy"]
    assert accuracy == {0: pytest.approx(0.65, abs=0.05), 30: pytest.approx(0.80, abs=0.05)}


def test_every_public_name_is_on_an_api_page() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    documented_names = set(re.findall(r"^::: ([\w.]+)$", pages, re.M))
    for module in map(importlib.import_module, PUBLIC_MODULES):
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        for name in names:
            value = getattr(module, name)
            full_names = {f"{module.__name__}.{name}", f"{getattr(value, '__module__', '')}.{name}"}
            assert (
                module.__name__ in documented_names
                or value.__module__ in documented_names
                or full_names & documented_names
            ), f"{module.__name__}.{name}"
            assert inspect.getdoc(value), f"{module.__name__}.{name} has no docstring"


def test_every_method_is_in_the_table_of_all_methods() -> None:
    text = (ROOT / "docs/which_method.md").read_text("utf-8").partition("## All methods")[2]
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", text, re.M)) == list(plugins.names("lntl.methods"))


@pytest.mark.full
def test_the_site_is_built_without_a_warning() -> None:
    process = subprocess.run(
        [sys.executable, "scripts/docs_site.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


GALLERY = sorted((ROOT / "examples/gallery").glob("*.py"))


def test_the_gallery_page_shows_every_example_with_its_picture() -> None:
    text = (ROOT / "docs/gallery.md").read_text("utf-8")
    for path in GALLERY:
        assert f"](../examples/gallery/{path.name})" in text
        assert f"](../examples/gallery/output/{path.stem}.png)" in text
        assert len(path.read_text("utf-8").splitlines()) <= 60, path


@pytest.mark.full
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_an_example_of_the_gallery_prints_the_stored_output(path: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 1000
    stored_output = json.loads((path.parent / f"output/{path.stem}.json").read_text("utf-8"))["printed"]
    # The last bits, and so the printed digits, may differ between processors.
    printed_text, expected = (re.sub(r"\d+\.\d+", "N", text) for text in (process.stdout, stored_output))
    assert printed_text == expected
