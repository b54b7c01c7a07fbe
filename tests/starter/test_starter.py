"""`lntl init` writes images that agree with their table, a configuration, and a Makefile whose targets run."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from checkout_copy import copy_checkout, run_shell
from PIL import Image
from tiny_runs import lntl

from lntl import config as configuration
from lntl import data as data_sets
from lntl import starter
from lntl.audit import audit
from lntl.starter import BACKGROUNDS, SHAPES, SIDE, SPLITS


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter") / "shapes"
    starter.write_project(folder)
    return folder


def read_rows(project: Path) -> list[dict[str, str]]:
    with (project / "data/table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_only_train_rows_of_the_table_are_biased(project: Path) -> None:
    counts = Counter((row["split"], row["shape"], row["background"]) for row in read_rows(project))
    backgrounds = tuple(BACKGROUNDS)
    for split, (total, random_share) in SPLITS.items():
        for shape in range(3):
            aligned_counts, conflicting_counts = (
                [counts[split, SHAPES[shape], backgrounds[b]] for b in range(3) if (b == shape) == is_aligned]
                for is_aligned in (True, False)
            )
            assert sum(aligned_counts) + sum(conflicting_counts) == total / 3
            assert min(conflicting_counts) >= 3
            if random_share == 1:
                assert {*aligned_counts, *conflicting_counts} == {total / 9}
            else:
                assert sum(conflicting_counts) < 0.1 * sum(aligned_counts)


def test_an_image_shows_the_background_and_the_shape_of_its_row(project: Path) -> None:
    for row in read_rows(project)[::7]:
        pixels = np.asarray(Image.open(project / "data" / row["image"]), dtype=float)
        assert pixels.shape == (SIDE, SIDE, 3)
        corner = pixels[:3, :3].mean(axis=(0, 1))
        nearest_background = min(BACKGROUNDS, key=lambda name: float(np.abs(corner - BACKGROUNDS[name]).sum()))
        assert nearest_background == row["background"]
        middle_brightness = pixels[14:18, 14:18].mean()
        assert middle_brightness < 100 or middle_brightness > 175  # the shape is black or white


def test_shapes_differ_by_their_area(project: Path) -> None:
    """With equal radius, circle, square and triangle have the areas pi, 2 and 3 sqrt(3) / 4."""
    areas: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for row in read_rows(project):
        gray = np.asarray(Image.open(project / "data" / row["image"]).convert("L"), dtype=float)
        areas[row["shape"]].append(float((np.abs(gray - gray[:3, :3].mean()) > 40).mean()))
    means = [np.mean(areas[shape]) for shape in SHAPES]
    np.testing.assert_allclose(means / means[0], [1, 2 / np.pi, 3 * 3**0.5 / 4 / np.pi], atol=0.08)


def test_two_starter_projects_are_equal(project: Path, tmp_path: Path) -> None:
    starter.write_project(tmp_path / "second")
    for path in project.rglob("*.*"):
        assert (tmp_path / "second" / path.relative_to(project)).read_bytes() == path.read_bytes()


def test_the_configuration_gives_the_classes_biases_and_splits_of_the_table(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    config = configuration.read(Path("config.yaml"))
    data = data_sets.load(config.data.name, config.data)
    assert set(data.spec.class_names) == set(SHAPES)
    assert set(data.spec.bias_value_names) == set(BACKGROUNDS)
    assert {name: len(split) for name, split in data.splits.items()} == {k: n for k, (n, _) in SPLITS.items()}
    assert [data.spec.bias_value_names[b] for b in data.spec.aligned] == [
        dict(zip(SHAPES, BACKGROUNDS, strict=True))[name] for name in data.spec.class_names
    ]
    assert lntl("data", "info", "config.yaml") == 0
    assert "background" in capsys.readouterr().out


def test_the_configuration_is_what_the_audit_recommends(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    config = configuration.read(Path("config.yaml"), ["data.random_colors=0"])
    recommendation = audit(config, images=True, show_progress=lambda items, _: items).check.recommendation
    assert recommendation is not None
    recommended, starter_config = yaml.safe_load(recommendation.yaml), yaml.safe_load(Path("config.yaml").read_text())
    assert recommended["data"] == {"random_colors": starter_config["data"]["random_colors"]}
    assert recommended["training"]["phases"] == starter_config["training"]["phases"]


def test_the_phases_in_comments_are_valid(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    text = Path("config.yaml").read_text()
    unlearning = re.sub(r"^( +)# (- \{method)", r"\1\2", re.sub(r".*method: erm.*\n", "", text), flags=re.MULTILINE)
    raw = yaml.safe_load(unlearning)
    del raw["data"]["random_colors"]
    assert [phase.method for phase in configuration.validate(raw, "test").training.phases] == [
        "group_dro",
        "bias_head",
        "lntl",
    ]


@pytest.mark.full
def test_every_target_of_the_makefile_runs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    repository = copy_checkout(tmp_path)
    train = "make train ARGS='--epochs 1 evaluation.erm_epochs=1'"
    process = run_shell(
        f"lntl init shapes && cd shapes && make && make check && {train} && make report predict export", repository
    )
    assert process.returncode == 0, process.stderr
    project = repository / "shapes"
    assert (project / "results/shapes/report/index.html").exists()
    assert (project / "shapes.onnx").exists()
    with (project / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(read_rows(project))


def test_the_command_prints_the_files_and_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema

    (tmp_path / "empty").mkdir()
    assert lntl("init", str(tmp_path / "empty")) == 0
    out = capsys.readouterr().out
    assert f"data/table.csv with {sum(n for n, _ in SPLITS.values())} images" in out
    assert "make train" in out
    schema = tmp_path / "empty/lntl.schema.json"
    assert (tmp_path / "empty/config.yaml").read_text().startswith(f"# yaml-language-server: $schema={schema.name}\n")
    jsonschema.validate(yaml.safe_load((tmp_path / "empty/config.yaml").read_text()), json.loads(schema.read_text()))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_init_refuses_a_path_with_content_and_does_not_change_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    existing_file = tmp_path / ("mine/notes.txt" if kind == "folder" else "mine")
    existing_file.parent.mkdir(exist_ok=True)
    existing_file.write_text("mine")
    assert lntl("init", str(tmp_path / "mine")) == 2
    assert "mine: not an empty folder; name a new folder" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [existing_file]
    assert existing_file.read_text() == "mine"
