"""The data set `table`: columns, faults with their lines, splits, biases and Parquet files."""

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

from lntl import yaml_file
from lntl.data.table import Table
from lntl.errors import UserError
from lntl.types import IGNORE

N = 60
WriteTable = Callable[..., Path]


def make_rows() -> list[dict[str, str]]:
    """Return 60 rows: pets by day and by night, two images per home, aged 1 to 60."""
    return [
        {
            "image": f"pets/{k:02d}.png",
            "label": ("cat", "dog", "eel")[k % 3],
            "sky": ("day", "night")[k // 3 % 2],
            "age": str(k + 1),
            "home": f"h{k // 2}",
            "split": ("train", "train", "val", "test")[k // 6 % 4],
        }
        for k in range(N)
    ]


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    """A function that writes 60 small gray images and pets.csv; `changes` has new values by row number."""
    (tmp_path / "pets").mkdir()
    for k in range(N):
        Image.new("RGB", (4, 4), (4 * k, 4 * k, 4 * k)).save(tmp_path / "pets" / f"{k:02d}.png")

    def make(changes: dict[int, dict[str, str]] | None = None, **dialect: Any) -> Path:
        path = tmp_path / "pets.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*make_rows()[0]], lineterminator="\n", **dialect)
            writer.writeheader()
            writer.writerows(row | (changes or {}).get(k, {}) for k, row in enumerate(make_rows()))
        return path

    return make


def build_table(path: Path, **settings: Any) -> Table:
    return Table(Table.Config.model_validate({"path": str(path), "bias": "sky", "size": 4} | settings))


def build_table_and_get_error(path: Path, **settings: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        build_table(path, **settings)
    return str(error.value).splitlines()


def get_cells(data: Table) -> dict[int, tuple[str, str, str]]:
    """Return class, bias value and split of each row, read from the splits."""
    cells = {}
    for name, split in data.splits.items():
        for row, y, group in zip(*(t.tolist() for t in (split.row, split.y, split.group)), strict=True):
            bias = "unknown" if group == IGNORE else data.spec.bias_value_names[group - y * data.spec.num_bias_values]
            cells[row] = data.spec.class_names[y], bias, name
    return cells


# --- valid tables ---


def test_labels_biases_and_splits_are_those_of_the_table(write_table: WriteTable) -> None:
    data = build_table(write_table(), split="split")
    assert get_cells(data) == {k: (row["label"], row["sky"], row["split"]) for k, row in enumerate(make_rows())}
    assert (data.spec.class_names, data.spec.bias_value_names) == (("cat", "dog", "eel"), ("day", "night"))
    assert (data.spec.bias_shape, data.spec.num_bins, data.spec.num_rows) == ((), 2, N)
    assert data.val_note == "rows of split val"
    assert data.bias_kind == "sky"
    assert "60 rows, 3 classes of label, 2 values of sky" in data.source


def test_each_row_has_its_image(write_table: WriteTable) -> None:
    split = build_table(write_table(), split="split").splits["test"]
    index = torch.arange(len(split))
    assert split.pixels(index)[:, 0, 0, 0].tolist() == [4 * row for row in split.row.tolist()]
    batch = split.batch(index.flip(0))
    assert batch.x.shape == (len(split), 3, 4, 4)
    assert batch.x[:, 0, 0, 0].argsort().tolist() == batch.row.argsort().tolist()
    assert torch.equal(batch.y, split.y.flip(0))


def test_augmented_passes_the_seed_to_the_images(write_table: WriteTable, monkeypatch: pytest.MonkeyPatch) -> None:
    split = build_table(write_table()).splits["train"]
    calls: list[Any] = []
    monkeypatch.setattr(type(split.source), "load", lambda self, index, seed: calls.append((index.tolist(), seed)))
    for image_split in (split, split.augmented(7)):
        with pytest.raises(AttributeError):
            image_split.x(torch.tensor([0, 2]))
    expected_rows = split.row[[0, 2]].tolist()
    assert calls == [(expected_rows, None), (expected_rows, 7)]


def test_val_is_drawn_from_train_if_the_table_has_none(write_table: WriteTable) -> None:
    changes = {k: {"split": "training"} for k, row in enumerate(make_rows()) if row["split"] == "val"}
    data = build_table(write_table(changes), split="split", val_fraction=0.2)
    assert {k for k, cell in get_cells(data).items() if cell[2] == "test"} == {
        k for k, row in enumerate(make_rows()) if row["split"] == "test"
    }
    counts = {name: len(split) for name, split in data.splits.items()}
    assert counts["val"] == pytest.approx(0.2 * (counts["train"] + counts["val"]), abs=3)
    assert "20% of the training rows, drawn at random, stratified by label and bias, seed 0" in data.val_note


def test_without_a_split_column_all_splits_are_drawn_and_homes_stay_together(write_table: WriteTable) -> None:
    data = build_table(write_table(), group_id="home", val_fraction=0.2)
    homes: dict[int, set[str]] = {}
    for row, cell in get_cells(data).items():
        homes.setdefault(row // 2, set()).add(cell[2])
    assert len(get_cells(data)) == N
    assert all(len(splits) == 1 for splits in homes.values())
    assert "home kept together" in data.val_note
    assert get_cells(build_table(write_table(), val_fraction=0.2)) != get_cells(
        build_table(write_table(), val_fraction=0.2, seed=1)
    )


def test_a_missing_bias_is_allowed_and_its_share_is_reported(write_table: WriteTable) -> None:
    data = build_table(write_table({k: {"sky": "NA"} for k in range(6)}), split="split")
    assert data.notes == ["10.0% of the rows have no sky ('NA' counts as missing; see data.missing)"]
    assert {k for k, cell in get_cells(data).items() if cell[1] == "unknown"} == set(range(6))
    batch = data.splits["train"].batch(torch.arange(6))
    assert batch.bias.tolist() == batch.group.tolist() == [IGNORE] * 6
    assert not batch.bias_features.any()


def test_several_biases_from_bins_and_from_images(write_table: WriteTable) -> None:
    bias = ["sky", {"column": "age", "edges": [31]}, {"from": "brightness", "bins": 3}]
    data = build_table(write_table(), bias=bias, split="split")
    assert (data.spec.bias_shape, data.spec.num_bins) == ((3,), 3)
    batch = data.splits["test"].batch(torch.arange(len(data.splits["test"])))
    assert batch.bias.tolist() == [[k // 3 % 2, int(k >= 30), k // 20] for k in batch.row.tolist()]
    assert batch.bias_features.shape[1] == 2 + 2 + 3 + 2
    assert data.spec.bias_value_names[0].startswith("day, age below 31, brightness below 0.")


def test_the_bias_color_is_measured_before_images_become_gray(write_table: WriteTable, tmp_path: Path) -> None:
    path = write_table()
    for k in range(N):
        Image.new("RGB", (4, 4), ((255, 0, 0), (0, 100, 154))[k % 2]).save(tmp_path / "pets" / f"{k:02d}.png")
    bias = {"from": "color", "edges": [0.3]}
    colored_table, gray_table = (build_table(path, bias=bias, grayscale=grayscale) for grayscale in (False, True))
    assert get_cells(colored_table) == get_cells(gray_table)
    x = gray_table.splits["train"].x(torch.arange(4))
    assert gray_table.transform is not None
    assert torch.equal(
        x, gray_table.transform([tmp_path / "pets" / f"{k:02d}.png" for k in gray_table.splits["train"].row[:4]])
    )
    assert torch.equal(
        gray_table.splits["test"].pixels(torch.arange(2)).unique(), torch.tensor([76], dtype=torch.uint8)
    )


def test_tabs_semicolons_byte_order_marks_and_quoted_lines_are_read(write_table: WriteTable, tmp_path: Path) -> None:
    expected = get_cells(build_table(write_table(), split="split"))
    assert get_cells(build_table(write_table(delimiter=";"), split="split", delimiter=";")) == expected
    tab_path = write_table(delimiter="\t").rename(tmp_path / "pets.tsv")
    assert get_cells(build_table(tab_path, split="split")) == expected
    path = write_table({0: {"home": "two\nlines"}})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert get_cells(build_table(path, split="split")) == expected


def test_root_is_the_folder_of_the_images(write_table: WriteTable, tmp_path: Path) -> None:
    path = write_table({k: {"image": f"{k:02d}.png"} for k in range(N)})
    assert get_cells(build_table(path, split="split", root=str(tmp_path / "pets")))


# --- invalid tables ---


def test_all_wrong_rows_are_listed_with_their_lines(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "pets" / "05.png").write_bytes(b"no image")
    changes = {0: {"home": "two\nlines"}, 1: {"label": ""}, 2: {"image": "gone.png"}, 3: {"image": ""}}
    path = write_table(changes | {4: {"split": "tran", "age": "old"}, 6: {"label": " ", "split": ""}})
    text = path.read_text().replace("pets/07.png,dog", "pets/07.png,dog,more").replace("pets/08", "\n\npets/08")
    path.write_text(text)
    head, *lines = build_table_and_get_error(path, split="split", bias=["sky", {"column": "age", "bins": 2}])
    assert head == f"table {path}: 7 of 60 rows are wrong; correct them, or leave them out with data.on_error: skip"
    assert [line.strip() for line in lines if "line 11" not in line] == [
        "line 4: label is empty",
        f"line 5: missing file {tmp_path}/gone.png",
        "line 6: image is empty",
        "line 7: unknown split 'tran' (valid: train, val, test, training, valid, validation, dev, testing); "
        "age is not a number: 'old'",
        next(line.strip() for line in lines if "line 8" in line),
        "line 9: label is empty; unknown split '' (valid: train, val, test, training, valid, validation, dev, testing)",
        next(line.strip() for line in lines if "line 10" in line),
    ]
    assert "line 8: unreadable image" in lines[4]
    assert "wrong number of fields (7, the header has 6)" in lines[6]


def test_wrong_rows_are_skipped_and_listed(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "pets" / "05.png").write_bytes(b"no image")
    data = build_table(write_table({1: {"label": ""}, 2: {"image": "gone.png"}}), split="split", on_error="skip")
    assert [line.split(":")[0] for line in data.skipped_rows] == ["line 3", "line 4", "line 7"]
    assert data.notes == ["3 wrong rows are left out"]
    valid_rows = [row for k, row in enumerate(make_rows()) if k not in (1, 2, 5)]
    assert get_cells(data) == {k: (row["label"], row["sky"], row["split"]) for k, row in enumerate(valid_rows)}
    split = data.splits["train"]
    gray_values = split.pixels(torch.arange(len(split)))[:, 0, 0, 0].tolist()
    assert gray_values == [4 * int(valid_rows[row]["image"][5:7]) for row in split.row.tolist()]


@pytest.mark.parametrize(("check", "num_skipped"), [("read", 2), ("exist", 1), ("none", 0)])
def test_the_setting_check_decides_which_faults_are_found(
    write_table: WriteTable, tmp_path: Path, check: str, num_skipped: int
) -> None:
    (tmp_path / "pets" / "05.png").write_bytes(b"no image")
    data = build_table(write_table({2: {"image": "gone.png"}}), check=check, on_error="skip")
    assert len(data.skipped_rows) == num_skipped


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"label": "labl"}, "no column 'labl'; did you mean 'label'?"),
        ({}, {"bias": ["sky", "moon"]}, "no column 'moon'; valid: image, label"),
        ({}, {"bias": ["sky", "label"]}, "label and bias are both label; they must be different columns"),
        ({}, {"delimiter": ";"}, "with delimiter ';' its header has one column, 'image,label,sky,age,home,split'"),
        ({k: {"label": "cat"} for k in range(N)}, {}, "label has only the value 'cat'; a task needs two classes"),
        ({k: {"sky": "day"} for k in range(N)}, {}, "bias sky: it has only the value 'day'"),
        ({k: {"split": "train"} for k in range(N)}, {"split": "split"}, "no row is in test"),
        ({k: {"split": "test"} for k in range(N)}, {"split": "split"}, "no row is in train, val"),
        (
            {0: {"split": "test", "label": "fox"}},
            {"split": "split"},
            "no training row has label fox; add training rows",
        ),
        ({7: {"home": "h9"}}, {"split": "split", "group_id": "home"}, "1 values of home have rows in more than one"),
        ({0: {"sky": 'a"b'}}, {}, "line 2: ',' expected after '\"'; is a quotation mark not closed?"),
    ],
)
def test_invalid_tables_and_settings_are_an_error(
    write_table: WriteTable, changes: Any, settings: dict[str, Any], message: str
) -> None:
    path = write_table(changes)
    path.write_text(path.read_text().replace('"a""b"', '"a"b'))
    assert message in "\n".join(build_table_and_get_error(path, **settings))


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    assert "cannot read the table: No such file" in build_table_and_get_error(tmp_path / "none.csv")[0]
    lines = ["image,label,sky", *["a,b,c"] * 5000, "ä,b,c", "a,b,c"]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode("latin1"))
    assert (
        "line 5002 is not UTF-8 (invalid continuation byte); save it as CSV UTF-8"
        in build_table_and_get_error(tmp_path / "a.csv")[0]
    )
    (tmp_path / "b.csv").write_bytes(b"")
    assert "the file or its first line is empty" in build_table_and_get_error(tmp_path / "b.csv")[0]


def test_a_table_with_only_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label,sky\n")
    assert build_table_and_get_error(tmp_path / "a.csv") == [f"table {tmp_path}/a.csv: the file has no row"]


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ({"column": "age", "bins": 1}, "greater than or equal to 2"),
        ({"column": "age", "bins": 2, "edges": [1.0]}, "either bins or edges"),
        ({"column": "age", "edges": [2.0, 1.0]}, "whose edges ascend"),
        ({"bins": 2}, "either column or from"),
        ({"from": "brightness"}, "bins or edges, because brightness is a number"),
        (["sky", {"column": "sky", "bins": 2}], "'sky' is listed twice"),
        (3, "a column's name, {column, bins}"),
        ([["sky"]], "a column's name, {column, bins}"),
    ],
)
def test_invalid_settings_of_a_bias_are_refused(bias: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Table.Config.model_validate({"path": "a.csv", "bias": bias})


def test_a_label_column_of_numbers_gives_one_error(write_table: WriteTable) -> None:
    """One message about the column instead of one per value."""
    message = build_table_and_get_error(write_table(), label="age")[0]
    assert re.search(
        r"no training row has age \d+(, \d+){9} and \d+ more of the 60 values; is age a number or", message
    )


# --- Parquet ---


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        "reading Parquet needs pyarrow: pip install pyarrow" in build_table_and_get_error(tmp_path / "pets.parquet")[0]
    )


def write_parquet(path: Path, **columns: Any) -> Path:
    """Write the rows as Parquet, with some columns replaced by pyarrow arrays."""
    original_columns = {name: pa.array([row[name] for row in make_rows()]) for name in make_rows()[0]}
    pq.write_table(pa.table(original_columns | columns), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


AGES = list(range(1, N + 1))
AGE_BINS = {"column": "age", "edges": [31]}


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"label": pa.array([row["label"] for row in make_rows()]).dictionary_encode(), "age": pa.array(AGES)},
        {"image": pa.array([row["image"] for row in make_rows()], pa.large_string()), "age": pa.array(AGES, pa.int8())},
        {
            "split": pa.array([row["split"] for row in make_rows()]).dictionary_encode(),
            "age": pa.array(AGES, pa.float32()),
        },
        {"sky": pa.array([row["sky"] for row in make_rows()], pa.string_view()), "age": pa.array(AGES, pa.uint64())},
    ],
    ids=["text", "dictionary", "large text", "dictionary of splits", "views"],
)
def test_parquet_files_of_all_column_types_give_the_same_rows(write_table: WriteTable, columns: dict[str, Any]) -> None:
    path = write_table()
    for bias in ("sky", AGE_BINS, ["sky", AGE_BINS]):
        assert get_cells(build_table(write_parquet(path, **columns), split="split", bias=bias)) == get_cells(
            build_table(path, split="split", bias=bias)
        )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (pa.array([k % 3 for k in range(N)]), ("0", "1", "2")),
        # pandas stores integers with missing values as floats.
        (pa.array([float(k % 3) for k in range(N)]), ("0", "1", "2")),
        (pa.array([k % 3 / 2 for k in range(N)]), ("0", "0.5", "1")),
        (pa.array([k % 3 for k in range(N)], pa.int8()).dictionary_encode(), ("0", "1", "2")),
        (pa.array([k % 3 == 1 for k in range(N)]), ("False", "True")),
    ],
    ids=["integers", "floats without a fraction", "floats", "dictionary of integers", "booleans"],
)
def test_labels_that_are_numbers_keep_short_names(write_table: WriteTable, labels: Any, names: tuple[str, ...]) -> None:
    data = build_table(write_parquet(write_table(), label=labels), split="split")
    assert data.spec.class_names == names
    for split in data.splits.values():
        for row, y in zip(split.row.tolist(), split.y.tolist(), strict=True):
            assert float(labels[row].as_py()) == float({"False": 0, "True": 1}.get(names[y], names[y]))


def test_nulls_and_nan_are_missing(write_table: WriteTable) -> None:
    sky: list[Any] = [row["sky"] for row in make_rows()]
    sky[4] = None
    data = build_table(write_parquet(write_table(), sky=pa.array(sky)), split="split")
    assert get_cells(data)[4][1] == "unknown"
    ages: list[Any] = [float(age) for age in AGES]
    ages[4], ages[5] = None, float("nan")
    cells = get_cells(
        build_table(write_parquet(write_table(), age=pa.array(ages)), split="split", bias=AGE_BINS, missing=[])
    )
    assert [row for row, (_, bias, _) in cells.items() if bias == "unknown"] == [4, 5]
    labels: list[Any] = [row["label"] for row in make_rows()]
    labels[3] = None
    lines = build_table_and_get_error(write_parquet(write_table(), label=pa.array(labels)), split="split")
    assert "row 4: label is empty" in lines[1]


def test_parquet_row_groups_may_have_different_dictionaries(write_table: WriteTable) -> None:
    path = write_table()
    expected = get_cells(build_table(path, split="split"))
    table = pa.table({name: pa.array([row[name] for row in make_rows()]) for name in make_rows()[0]})
    tables = [table.slice(start, 7) for start in range(0, N, 7)]
    encoded_tables = [part.set_column(1, "label", part.column("label").dictionary_encode()) for part in tables]
    pq.write_table(pa.concat_tables(encoded_tables), path.with_suffix(".parquet"), row_group_size=7)
    assert get_cells(build_table(path.with_suffix(".parquet"), split="split")) == expected


def test_damaged_parquet_files_are_refused(write_table: WriteTable, tmp_path: Path) -> None:
    path = write_parquet(write_table())
    assert "no column 'sly'; did you mean 'sky'?" in build_table_and_get_error(path, bias="sly")[1]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "pets.parquet: not a readable Parquet file: " in build_table_and_get_error(path)[0]
    # The end of the file, which has the names of the columns, is intact.
    path.write_bytes(content[:40] + bytes(200) + content[240:])
    assert "pets.parquet: not a readable Parquet file: " in build_table_and_get_error(path)[0]
    path.write_text("image,label,sky")
    assert "pets.parquet: not a readable Parquet file: " in build_table_and_get_error(path)[0]
    assert build_table_and_get_error(tmp_path / "none.parquet") == [
        f"{tmp_path}/none.parquet: there is no such file; set data.path to your table"
    ]


def test_parquet_may_contain_the_images(write_table: WriteTable, tmp_path: Path) -> None:
    path = write_table()
    names = [row["image"] for row in make_rows()]
    contents = [(tmp_path / name).read_bytes() for name in names]
    expected = build_table(path, split="split")
    pairs = [{"bytes": content, "path": name} for content, name in zip(contents, names, strict=True)]
    for images in (pa.array(contents, pa.binary()), pa.array(contents, pa.large_binary()), pa.array(pairs)):
        data = build_table(write_parquet(path, image=images), split="split")
        assert get_cells(data) == get_cells(expected)
        index = torch.arange(len(data.splits["test"]))
        assert torch.equal(data.splits["test"].pixels(index), expected.splits["test"].pixels(index))
        assert data.row_name(4) == "row 5"
    invalid_contents = [None, b"no image", *contents[2:]]
    lines = build_table_and_get_error(write_parquet(path, image=pa.array(invalid_contents, pa.binary())), split="split")
    assert lines[1] == "  row 1: image is empty"
    assert lines[2].startswith("  row 2: unreadable image: not an image of a known format")
    nested_path = write_parquet(path, image=pa.array([[name] for name in names]))
    assert "image holds list<" in build_table_and_get_error(nested_path)[0]
    assert "it must hold names of image files, or their contents as bytes" in build_table_and_get_error(nested_path)[0]


# --- settings of texts, numbers and names ---


def test_the_message_about_a_missing_label_names_the_setting_for_missing_texts(write_table: WriteTable) -> None:
    """NA is also the country code of Namibia."""
    changes = {k: {"label": ("DE", "FR", "NA")[k % 3]} for k in range(N)}
    lines = build_table_and_get_error(write_table(changes), split="split")
    assert lines[1] == "  line 4: label is empty ('NA' counts as missing; see data.missing)"
    assert build_table(write_table(changes), split="split", missing=[]).spec.class_names == ("DE", "FR", "NA")
    data = build_table(write_table(changes), split="split", missing=["FR"], bias="label", label="sky")
    assert data.spec.bias_value_names == ("DE", "NA")


def test_the_message_about_a_decimal_comma_names_the_setting(write_table: WriteTable) -> None:
    path = write_table({k: {"age": f"{k + 1},5"} for k in range(N)})
    bias = {"column": "age", "edges": [31]}
    assert (
        build_table_and_get_error(path, bias=bias)[1]
        == "  line 2: age is not a number: '1,5' (a decimal comma? set data.decimal)"
    )
    data = build_table(path, bias=bias, decimal=",", split="split")
    for row, (_, value, _) in get_cells(data).items():
        assert value == ("age from 31" if row + 1.5 >= 31 else "age below 31")


def test_a_decimal_point_beside_decimal_commas_is_a_wrong_row(write_table: WriteTable) -> None:
    """1.234 may be one thousand two hundred and thirty-four where the decimal mark is a comma."""
    path = write_table({k: {"age": "1.234" if k == 0 else "1.234,5" if k == 1 else f"{k},5"} for k in range(N)})
    bias = {"column": "age", "edges": [31]}
    assert build_table_and_get_error(path, bias=bias, decimal=",")[1:] == [
        "  line 2: age has a decimal point: '1.234', but data.decimal is a comma",
        "  line 3: age is not a number: '1.234,5'",
    ]


def test_columns_with_the_names_yes_and_0_are_read(write_table: WriteTable) -> None:
    path = write_table()
    path.write_text(path.read_text().replace("label,sky", "yes,0", 1))
    settings = yaml_file.parse("{label: yes, bias: '0', split: split}", "a.yaml")
    assert get_cells(build_table(path, **settings)) == {
        k: (r["label"], r["sky"], r["split"]) for k, r in enumerate(make_rows())
    }
    for name, quoted_name in ((0, "0"), (True, "true"), (1.5, "1.5")):
        for key in ("label", "image", "split", "group_id", "bias"):
            with pytest.raises(ValueError, match=f'the name of a column in quotes, "{quoted_name}"'):
                Table.Config.model_validate({"path": "a.csv", "bias": "sky"} | {key: name})


# --- names of files and ids ---


def test_files_are_found_without_suffix_and_in_another_unicode_form(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "pets/03.png").rename(tmp_path / "pets/Mu\u0308ller.png")
    (tmp_path / "pets/04.png").rename(tmp_path / "pets/J\u00fcrgen.png")
    changes = {3: {"image": "pets/M\u00fcller.png"}, 4: {"image": "pets/Ju\u0308rgen.png"}, 5: {"image": "pets/05"}}
    data = build_table(write_table(changes), split="split")
    assert get_cells(data) == get_cells(build_table(write_table(changes), split="split", check="exist"))
    assert data.notes == [
        "2 files were found in another Unicode form",
        "1 files were found with the suffix .png",
    ]
    split = data.splits["train"]
    assert split.pixels(torch.arange(len(split)))[:, 0, 0, 0].tolist() == [4 * row for row in split.row.tolist()]
    (tmp_path / "pets/05.jpg").write_bytes((tmp_path / "pets/05.png").read_bytes())
    assert build_table_and_get_error(write_table(changes), split="split")[1] == (
        f"  line 7: missing file {tmp_path}/pets/05 (it may be 05.jpg or 05.png)"
    )


def test_group_ids_are_read_as_texts(write_table: WriteTable) -> None:
    """As Python numbers, 1_12 and 11_2 would both be 112."""
    homes = {0: "1_12", 1: "01", 18: "11_2", 19: "1"}
    data = build_table(write_table({k: {"home": home} for k, home in homes.items()}), split="split", group_id="home")
    assert {get_cells(data)[k][2] for k in (0, 1)} == {"train"}
    assert {get_cells(data)[k][2] for k in (18, 19)} == {"test"}


# --- rare classes ---


def test_train_has_a_row_of_a_rare_class(write_table: WriteTable) -> None:
    """Without a special rule, a random split could put the only row of a class into val or test."""
    path = write_table({4: {"label": "cow"}})
    tables = [build_table(path, seed=seed, check="none") for seed in range(30)]
    assert {get_cells(data)[4][2] for data in tables} == {"train"}
    notes = "; ".join(data.val_note for data in tables)
    assert "stratified by label and bias, seed" in notes
    assert "stratified by label only, because a group is small, seed" in notes
    assert (
        "stratified by label only, because a group is small, all rows of label cow in train, because they are too few"
        in notes
    )
    assert "stratified by label and bias, seed 0" in build_table(write_table(), check="exist").val_note


# --- size ---


def test_many_rows_are_read_in_chunks(tmp_path: Path) -> None:
    n = 12_345
    rng = np.random.default_rng(0)
    label, sky, age = rng.integers(0, 3, n), rng.integers(0, 2, n), rng.normal(size=n)
    with (tmp_path / "big.csv").open("w") as file:
        file.write("image,label,sky,age\n")
        file.writelines(f"{k}.png,{label[k]},{sky[k]},{age[k]}\n" for k in range(n))
    data = build_table(tmp_path / "big.csv", bias=["sky", {"column": "age", "bins": 4}], check="none")
    for split in data.splits.values():
        assert split.y.tolist() == label[split.row.numpy()].tolist()
        assert split.bias[:, 0].tolist() == sky[split.row.numpy()].tolist()
    age_bin = torch.cat([split.bias[:, 1] for split in data.splits.values()])
    assert torch.bincount(age_bin).tolist() == pytest.approx([n / 4] * 4, abs=1)


def test_two_spellings_of_a_number_are_an_error_except_in_bins(write_table: WriteTable) -> None:
    path = write_table({0: {"age": "01"}, 1: {"age": "2.0"}, 2: {"age": "2"}, 3: {"home": "1"}})
    for settings in ({"label": "age"}, {"bias": "age"}):
        with pytest.raises(UserError, match=r"table .*pets\.csv: age: '2' and '2.0' are one number in two spellings"):
            build_table(path, **settings)
    build_table(path, bias={"column": "age", "bins": 2})
    build_table(path, group_id="age")  # an id is a text


@pytest.mark.parametrize("name", ["pets/\0.png", "pe\0ts/00.png"])
def test_a_nul_in_a_name_is_a_missing_file(write_table: WriteTable, name: str) -> None:
    for check in ("exist", "read"):
        assert build_table_and_get_error(write_table({3: {"image": name}}), check=check)[1].startswith(
            "  line 5: missing file"
        )


def test_parquet_columns_of_lists_are_an_error(write_table: WriteTable) -> None:
    path = write_parquet(write_table(), sky=pa.array([[k % 2] for k in range(N)]))
    assert "pets.parquet: sky holds list<" in build_table_and_get_error(path)[0]
    assert build_table_and_get_error(path)[0].endswith("; a column must hold texts or numbers")
