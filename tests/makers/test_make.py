"""`lntl data make`, and a tiny training with each ready configuration on the table that it writes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from downloads import (
    make_face_rows,
    write_bar,
    write_celeba,
    write_dogs_and_cats,
    write_imdb_crop,
    write_imdb_lists,
    write_isic,
    write_utkface,
    write_waterbirds,
)
from tiny_runs import lntl

from lntl import config as configuration

SMALL_SETTINGS = [
    "data.size=32", "data.cache=none", "data.workers=0", "model.pretrained=false", "model.weights=null",
    "training.batch_size=8", "evaluation.erm_epochs=0",
    "evaluation.metrics=[accuracy, unbiased_accuracy, worst_group_accuracy]",
    "logging.use_tensorboard=false", "training.device=cpu",
]  # fmt: skip
DATA_SETS: dict[str, tuple[str, Callable[[Path], Path], list[str]]] = {
    "dogs_and_cats/tb2": ("dogs_and_cats", write_dogs_and_cats, ["--train", "tb2"]),
    "imdb_faces/eb1": ("imdb_faces", lambda folder: write_imdb_crop(folder, list(make_face_rows())), []),
    "celeba/blond_hair": ("celeba", lambda folder: write_celeba(folder, "csv"), []),
    "waterbirds/background": ("waterbirds", write_waterbirds, []),
    "utkface/eb1": ("utkface", write_utkface, ["--held-out", "0.5"]),
    "isic/ruler": ("isic", write_isic, ["--trap-set", "2"]),
    "bar/lff": ("bar", write_bar, []),
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("config", DATA_SETS)
def test_a_download_becomes_a_table_and_a_trained_network(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, download, options = DATA_SETS[config]
    download(Path("download"))
    assert lntl("data", "make", name, "download", "made.csv", *options) == 0
    stdout = capsys.readouterr().out
    command = f"lntl train {config} data.path=made.csv data.root=download"
    assert f"Next: {command}\n" in stdout
    phases = configuration.read(config).training.phases
    short_phases = [f"training.phases.{phase}.epochs=1" for phase in range(len(phases))]
    assert lntl(*command.split()[1:], *SMALL_SETTINGS, *short_phases) == 0
    (run,) = Path("results").iterdir()
    test = json.loads((run / "evaluation/test.json").read_text())
    assert test["n"] == Path("made.csv").read_text().count(",test")
    if name != "bar":  # every combination of label and bias occurs
        assert all(count > 0 for row in test["groups"]["count"] for count in row)


def test_the_command_prints_the_counts_and_the_next_command(capsys: pytest.CaptureFixture[str]) -> None:
    write_waterbirds(Path("birds"))
    assert lntl("data", "make", "waterbirds", "birds", "birds.csv") == 0
    stdout = [line.strip("│┃ ") for line in capsys.readouterr().out.splitlines()]
    rows = [line.replace("│", " ").split() for line in stdout if line.startswith(("train", "val", "test"))]
    cells = [(split, label, background) for split in ("train", "val", "test") for label in ("landbird", "waterbird")
             for background in ("land", "water")]  # fmt: skip
    assert rows == [[*cell, "4"] for cell in cells]
    assert stdout[-2:] == [
        "birds.csv: 48 images",
        "Next: lntl train waterbirds/background data.path=birds.csv data.root=birds",
    ]


def test_the_authors_lists_and_other_attributes_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    write_imdb_lists(Path("lists"), list(make_face_rows()))
    assert lntl("data", "make", "imdb_faces", "nowhere", "faces.csv", "--lists", "lists") == 2
    assert re.search(r"nowhere: (\d+) of \1 listed images are missing", capsys.readouterr().err)
    write_imdb_crop(Path("faces"), list(make_face_rows()))
    assert lntl("data", "make", "imdb_faces", "faces", "faces.csv", "--lists", "lists") == 0
    assert "2 faces are in no set" in capsys.readouterr().out
    write_celeba(Path("celeba"), "txt")
    assert lntl("data", "make", "celeba", "celeba", "young.csv", "--attribute", "Young", "--attribute", "Male") == 0
    assert Path("young.csv").read_text().startswith("image,split,Young,Male\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["waterbirds", "none", "x.csv"], "none: there is no such folder; name the folder that you unpacked"),
        (["waterbirds", "partial", "x.csv"], "partial: 1 of 48 listed images are missing, such as"),
        (["waterbirds", "birds", "no/x.csv"], "no/x.csv: cannot write it"),
        (["dogs_and_cats", "birds", "x.csv", "--train", "tb3"], "'tb3' is not one of"),
        (["dogs_and_cats", "birds", "x.csv", "--held-out", "0.9"], "should be less than or equal to 0.5"),
        (["digits.npz"], "No such command 'digits.npz'"),
    ],
)
def test_bad_input_gives_one_sentence_and_no_table(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_waterbirds(Path("birds"))
    next(write_waterbirds(Path("partial")).rglob("*.jpg")).unlink()
    assert lntl("data", "make", *arguments) == 2
    assert expected in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not Path("x.csv").exists()
