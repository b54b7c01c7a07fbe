"""`lntl predict`: one row per image in the order of the input, complete files or none, and unreadable images."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lanes import first_is_fast
from tiny_runs import lntl, read_tree

from lntl import config as configuration
from lntl.deploy import predicting
from lntl.deploy.inputs import Inputs, read
from lntl.deploy.loading import Classifier, load
from lntl.deploy.predicting import Prediction
from lntl.errors import UserError
from lntl.experiment.run import start

TrainedRun = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pets(trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run on image files; the working directory has copies of the 60 images in pets/, and pets.csv."""
    run = trained_run("table")
    shutil.copytree(run.parents[1] / "pets", tmp_path / "pets")
    shutil.copy(run.parents[1] / "pets.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def train_on(raw_config: Callable[..., dict[str, Any]]) -> Callable[[dict[str, Any]], Path]:
    """A function that trains an MLP for one epoch on a section `data` and returns the run folder."""

    def train(data: dict[str, Any]) -> Path:
        raw = raw_config("erm", project={"experiment_name": data["name"]}, model={"name": "mlp"})
        run = start(configuration.validate(raw | {"data": data}, "test"), overwrite=True)
        list(run.train())
        return run.folder.path

    return train


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_probabilities(path: str | Path) -> torch.Tensor:
    return torch.tensor([[float(row[f"p_{name}"]) for name in ("cat", "dog", "eel")] for row in read_rows(path)])


@pytest.mark.parametrize("batch_size", first_is_fast([7, 256]))
def test_folders_files_and_tables_become_rows(pets: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    monkeypatch.setattr(predicting, "BATCH_SIZE", batch_size)
    shutil.copy("pets/02.png", "pets/.hidden.png")
    Path("pets/notes.txt").write_text("no image")
    assert lntl("predict", str(pets), "pets", "pets.csv", "pets/02.png", "--out", "p.csv", "--features", "z.npz") == 0
    predictions = read_rows("p.csv")
    folder_paths = sorted(map(str, [*Path("pets").glob("[0-9]*.png"), *Path("pets/more").glob("*.png")]))
    table_paths = [row["image"] for row in read_rows("pets.csv")]
    assert [row["path"] for row in predictions] == [*folder_paths, *table_paths, "pets/02.png"]
    assert [*predictions[0]] == ["path", "prediction", "p_cat", "p_dog", "p_eel"]
    model = load(pets)
    expected = model.predict([row["path"] for row in predictions])
    torch.testing.assert_close(read_probabilities("p.csv"), expected, atol=1e-6, rtol=0)
    assert [row["prediction"] for row in predictions] == [model.class_names[k] for k in expected.argmax(dim=1)]
    with np.load("z.npz") as z:
        assert z["path"].tolist() == [row["path"] for row in predictions]
        torch.testing.assert_close(
            torch.from_numpy(z["features"]), model.features([row["path"] for row in predictions])
        )


def test_a_folder_gives_its_images_of_all_formats_and_counts_other_files(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path("more")
    folder.mkdir()
    for name in ("a.jfif", "b.JPE", "c.ppm", ".d.png"):
        shutil.copy("pets/02.png", folder / name)
    (folder / "notes.txt").write_text("no image")
    assert lntl("predict", str(pets), "more", "--out", "p.csv") == 0
    assert [row["path"] for row in read_rows("p.csv")] == ["more/a.jfif", "more/b.JPE", "more/c.ppm"]
    note = "more: 2 files are ignored, because they are hidden or not images: 1 .txt, 1 hidden"
    assert note in caplog.text


def test_an_npz_of_vectors_or_images_gives_a_row_for_each_example(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, name in (("vectors", "x"), ("images", "pictures")):
        with np.load(trained_run(kind).parents[1] / f"{kind}.npz") as arrays:
            x = arrays["x"]
        np.savez("a.npz", **{name: x})
        assert lntl("predict", str(trained_run(kind)), "a.npz", "--column", name, "--out", "p.csv") == 0
        torch.testing.assert_close(read_probabilities("p.csv"), load(trained_run(kind)).predict(x), atol=1e-6, rtol=0)
        assert [row["path"] for row in read_rows("p.csv")] == [f"a.npz[{row}]" for row in range(60)]


@pytest.mark.parametrize("kind", ["vectors", "floats"])
def test_examples_that_are_not_finite_are_refused_or_skipped(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predicting, "BATCH_SIZE", 4)
    with np.load(trained_run(kind).parents[1] / f"{kind}.npz") as arrays:
        x = arrays["x"]
    expected = load(trained_run(kind)).predict(x)
    for row, value in ((3, np.nan), (7, np.inf), (8, -np.inf)):
        x[row].flat[0] = value
    x[9] = np.nan
    np.savez("a.npz", x=x)
    assert lntl("predict", str(trained_run(kind)), "a.npz", "--out", "p.csv") == 2
    stderr = capsys.readouterr().err
    assert "4 of 60 images cannot be read, so nothing is written" in stderr
    assert "\n  a.npz[7]: is not finite" in stderr
    assert lntl("predict", str(trained_run(kind)), "a.npz", "--out", "p.csv", "--on-error", "skip") == 0
    valid_rows = [k for k in range(60) if k not in (3, 7, 8, 9)]
    assert [row["path"] for row in read_rows("p.csv")] == [f"a.npz[{k}]" for k in valid_rows]
    torch.testing.assert_close(read_probabilities("p.csv"), expected[valid_rows], atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="image 3: is not finite"):
        load(trained_run(kind)).predict(x)


@pytest.mark.usefixtures("pets")
def test_the_array_of_the_run_is_the_default(train_on: Callable[..., Path]) -> None:
    """The run was trained on the array `scan` of gray images (n, H, W)."""
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    scans = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez("scans.npz", scan=scans, y=y, bias=y // 2)
    run = train_on({"name": "arrays", "path": "scans.npz", "x": "scan"})
    assert lntl("predict", str(run), "scans.npz", "--out", "p.csv") == 0
    model = load(run)
    values = [[float(value) for name, value in row.items() if name.startswith("p_")] for row in read_rows("p.csv")]
    torch.testing.assert_close(torch.tensor(values), model.predict(scans), atol=1e-6, rtol=0)
    for images in (scans[:, None], scans[..., None], (scans / 255).astype(np.float32)):
        torch.testing.assert_close(model.predict(images), model.predict(scans))


@pytest.mark.usefixtures("pets")
def test_a_table_is_read_with_the_settings_of_the_run(train_on: Callable[..., Path]) -> None:
    Path("lists").mkdir()
    Path("lists/named.csv").write_text(Path("pets.csv").read_text().replace("image,", "file,", 1).replace(",", ";"))
    settings = {"path": "lists/named.csv", "image": "file", "bias": "sky", "size": 16, "root": ".", "delimiter": ";"}
    run = train_on({"name": "table"} | settings)
    assert lntl("predict", str(run), "lists/named.csv", "--out", "p.csv") == 0
    assert len(read_rows("p.csv")) == 60
    Path("other.csv").write_text("image|n\n02.png|1\n")
    options = ("--column", "image", "--delimiter", "|", "--root", "pets")
    assert lntl("predict", str(run), "other.csv", *options, "--out", "q.csv") == 0
    assert [row["path"] for row in read_rows("q.csv")] == ["pets/02.png"]
    assert read_rows("q.csv")[0]["prediction"] == read_rows("p.csv")[2]["prediction"]


def break_images() -> None:
    """Make three images unreadable."""
    Path("pets/00.png").write_bytes(b"")
    Path("pets/more/31.png").write_bytes(Path("pets/more/31.png").read_bytes()[:200])
    Path("pets/58.png").unlink()


def test_images_of_a_table_are_found_by_names_without_suffix_or_in_another_unicode_form(
    pets: Path, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    Path("pets/02.png").rename("pets/u\u0308.png")
    Path("t.csv").write_text('image\npets/04\npets/\u00fc.png\n""\n', encoding="utf-8")
    assert lntl("predict", str(pets), "t.csv", "--out", "p.csv", "--on-error", "skip") == 0
    assert "t.csv: 1 files were found with the suffix .png" in caplog.text
    assert "t.csv: 1 files were found in another Unicode form" in caplog.text
    assert "t.csv, line 4 (the image is empty): is a directory" in capsys.readouterr().out
    assert [row["path"] for row in read_rows("p.csv")] == ["pets/04", "pets/\u00fc.png"]  # as in the table
    expected = load(pets).predict(["pets/04.png", "pets/u\u0308.png"])
    torch.testing.assert_close(read_probabilities("p.csv"), expected, atol=1e-6, rtol=0)


def test_brackets_in_a_path_are_printed(pets: Path, capsys: Capture) -> None:
    Path("d[old]").mkdir()
    assert lntl("predict", str(pets), "pets/02.png", "--out", "d[old]/p.csv") == 0
    assert capsys.readouterr().out == "1 predictions\n  d[old]/p.csv\n"


def test_names_that_are_not_utf_8_are_written_unchanged(pets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("named").mkdir()
    for name in (b"named/caf\xe9.png", b"named/th\xe9.png"):
        shutil.copy("pets/02.png", os.fsdecode(name))
    Path(os.fsdecode(b"named/th\xe9.png")).write_bytes(b"")
    command = ("predict", str(pets), "named", "--out", "p.csv", "--features", "z.npz", "--on-error", "skip")
    assert lntl(*command) == 0
    assert Path("p.csv").read_bytes().splitlines()[1].startswith(b"named/caf\xe9.png,")
    with np.load("z.npz") as z:
        assert z["path"].tolist() == [os.fsdecode(b"named/caf\xe9.png")]
    assert "th\\udce9.png: an empty file" in capfd.readouterr().out


def test_names_that_start_like_a_formula_are_escaped_on_request(pets: Path) -> None:
    names = ["=1+2.png", "+a.png", "-b.png", "@c.png", "\td.png", "e=f.png"]
    for name in names:
        shutil.copy("pets/02.png", name)
    command = ["predict", str(pets), "--out", "p.csv", "--", *names]
    for option, mark in (([], ""), (["--escape-formulas"], "'")):
        assert lntl(*command[:2], *option, *command[2:]) == 0
        with Path("p.csv").open(newline="") as file:
            paths = [row["path"] for row in csv.DictReader(file)]
        assert paths == [*(f"{mark}{name}" for name in names[:-1]), names[-1]]


def test_unreadable_images_are_an_error_before_a_file_is_written(pets: Path, capsys: Capture) -> None:
    break_images()
    files_before = read_tree(Path())
    assert lntl("predict", str(pets), "pets.csv", "--out", "p.csv", "--features", "z.npz") == 2
    stderr = capsys.readouterr().err
    assert (
        "3 of 60 images cannot be read, so nothing is written; correct them, or leave them out with --on-error"
        in stderr
    )
    for line in ("pets/00.png: an empty file", "pets/more/31.png: a damaged", "pets/58.png: no such file"):
        assert f"\n  {line}" in stderr
    assert read_tree(Path()) == files_before


def test_unreadable_images_are_skipped_and_listed(pets: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "BATCH_SIZE", 2)
    expected = load(pets).predict([row["image"] for row in read_rows("pets.csv")])
    break_images()
    command = ("predict", str(pets), "pets.csv", "--out", "p.csv", "--features", "z.npz", "--on-error", "skip")
    assert lntl(*command) == 0
    out = capsys.readouterr().out
    assert "57 predictions\n" in out
    assert "3 images cannot be read and are left out:\n  pets/00.png: an empty file\n" in out
    valid_rows = [k for k in range(60) if k not in (0, 31, 58)]
    assert [row["path"] for row in read_rows("p.csv")] == [read_rows("pets.csv")[k]["image"] for k in valid_rows]
    torch.testing.assert_close(read_probabilities("p.csv"), expected[valid_rows], atol=1e-6, rtol=0)
    with np.load("z.npz") as z:
        assert len(z["path"]) == len(z["features"]) == 57


def test_the_option_skip_is_an_error_if_no_image_can_be_read(pets: Path, capsys: Capture) -> None:
    for k in range(12):
        Path(f"bad{k:02}.png").write_bytes(b"")
    names = sorted(str(path) for path in Path().glob("bad*.png"))
    assert lntl("predict", str(pets), *names, "--out", "p.csv", "--on-error", "skip") == 2
    stderr = capsys.readouterr().err
    assert "12 of 12 images cannot be read" in stderr
    assert "bad09.png" in stderr
    assert "bad10.png" not in stderr
    assert "and 2 more" in stderr
    assert not Path("p.csv").exists()


def test_after_an_unreadable_image_no_prediction_is_computed(pets: Path) -> None:
    break_images()
    classifier, forward_calls = load(pets), []
    classifier.f.register_forward_hook(lambda *_: forward_calls.append(1))
    checked_counts: list[int] = []
    prediction = Prediction(classifier, read([Path("pets.csv")], {}), progress=checked_counts.append)
    with pytest.raises(UserError, match="3 of 60"):
        prediction.write(Path("p.csv"))
    assert forward_calls == []
    assert sum(checked_counts) == 60


def test_an_existing_file_is_replaced_only_by_complete_predictions(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.csv").write_text("before")

    def raise_out_of_memory(classifier: Classifier, *_: object) -> None:
        raise RuntimeError("out of memory")

    classifier = load(pets)
    monkeypatch.setattr(type(classifier.g), "forward", raise_out_of_memory)
    with pytest.raises(UserError, match=r"p\.csv: cannot write it: out of memory"):
        Prediction(classifier, Inputs(["pets/02.png"], ["pets/02.png"])).write(Path("p.csv"))
    assert Path("p.csv").read_text() == "before"
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], "gone.png: there is no such file or folder"),
        (["empty"], "empty: it contains no image file ("),
        (["pets.csv", "--column", "imaeg"], "no column 'imaeg'; did you mean 'image'?"),
        (["pets.csv", "--column", "imaeg"], "--column names the column of the paths, here 'imaeg'"),
        (["semi.csv"], "with delimiter ',' its header has one column"),
        (["semi.csv"], "; set --delimiter"),
        (["semi.csv", "--delimiter", ";;"], "--delimiter ;;: give one character"),
        (["pets.csv", "--root", "gone"], "pets.csv: there is no folder gone of its images; set --root"),
        (["text.npz"], "text.npz: not a readable .npz file of plain arrays (not an .npz archive); name one"),
        (["gone.npz"], "gone.npz: there is no such file; name an .npz file"),
        (["v.npz", "pets"], "an .npz file cannot be combined with other files"),
        (["v.npz", "--column", "y"], "v.npz: no array 'y'; valid: x"),
        (["v.npz", "--column", "y"], "--column names the array, here 'y'"),
        (["v.npz"], "images: float64 (2, 7) do not fit the network, which takes (N, 3, 16, 16); pass paths"),
        (["wide.csv"], "wide.csv: the header has 1 fields, but line 3 has 2; correct the rows, or set --delimiter"),
        (["no_rows.csv"], "no_rows.csv: it has no row"),
        (["no_rows.parquet"], "no_rows.parquet: it has no row"),
        (["pets.csv", "--out", "pets.csv"], "pets.csv: is both read and written; name another file"),
        (["pets", "--out", "pets/02.png"], "pets/02.png: is one of the images to predict; name another file to write"),
        (["pets.csv", "--out", "./pets/../pets/04.png"], "is one of the images to predict"),
        (["pets", "--features", "pets/02.png"], "pets/02.png: is one of the images to predict"),
        (["pets", "--out", "no/p.csv"], "no/p.csv: there is no folder no; make it, or name another file"),
        (["pets", "--out", "empty"], "empty: is a folder; name a file to write"),
        (
            ["pets", "--features", "./p.csv"],
            "p.csv: is named for the predictions and for the features; name two different files",
        ),
        (["pets", "--features", "no/z.npz"], "no/z.npz: there is no folder no"),
    ],
)
def test_bad_arguments_are_refused_and_no_file_is_written(
    pets: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    np.savez("v.npz", x=np.zeros((2, 7)))
    Path("semi.csv").write_text("image;label\npets/02.png;cat\n")
    Path("text.npz").write_text("text")
    Path("wide.csv").write_text("image\npets/02.png\npets/04,png\n")
    Path("no_rows.csv").write_text("image\n")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), "no_rows.parquet")
    out_option = [] if "--out" in arguments else ["--out", "p.csv"]
    files_before = read_tree(Path())
    monkeypatch.setattr(Prediction, "_batches", None)  # fail if a prediction starts
    assert lntl("predict", str(pets), *arguments, *out_option) == 2
    assert message in capsys.readouterr().err
    assert read_tree(Path()) == files_before


def test_only_the_error_for_a_missing_column_suggests_the_option_column(pets: Path, capsys: Capture) -> None:
    Path("latin.csv").write_bytes("image\nkr\xfcmel.png\n".encode("latin1"))
    assert lntl("predict", str(pets), "latin.csv", "--out", "p.csv") == 2
    stderr = capsys.readouterr().err
    assert "not UTF-8" in stderr
    assert "--column" not in stderr


def test_a_run_on_vectors_refuses_images(trained_run: TrainedRun, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert lntl("predict", str(trained_run("vectors")), str(tmp_path / "a.png"), "--out", str(tmp_path / "p.csv")) == 2
    assert "takes arrays of numbers (N, 7), not images; pass an array or .npz" in capsys.readouterr().err
