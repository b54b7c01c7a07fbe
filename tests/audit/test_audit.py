"""The audit of data: counts equal loops over the rows, and findings and recommendations fit the data."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score

from lntl import config as configuration
from lntl import experiment
from lntl.audit import Audit, audit
from lntl.audit.association import contrast_features, detectable_difference, neighbour_accuracy
from lntl.audit.recommendation import recommend
from lntl.config import Config
from lntl.data import cache
from lntl.data.table import Table
from lntl.errors import UserError
from lntl.reporting.pages import render_check
from lntl.reporting.tables import check_tables
from lntl.reporting.verdict import check_verdict

RawConfig = Callable[..., dict[str, Any]]
Row = dict[str, str]
CLASSES, SKIES = ("katze <b>", "dog & co", "[red]eel|ö"), ("day", "night", "dämmerung")
N = 90


def iterate_without_progress(items: Sequence[Any], name: str) -> Iterable[Any]:
    return items


def make_rows() -> list[Row]:
    """Return 90 rows of three classes; the sky mostly indicates the class and is sometimes missing."""
    rng, table_rows = np.random.default_rng(0), []
    for k in range(N):
        y = k % 3
        sky = SKIES[y if rng.random() < 0.8 else int(rng.integers(3))]
        table_rows.append(
            {
                "image": f"tier {k:02d} é.png",
                "label": CLASSES[y],
                "sky": "" if k % 15 == 4 else sky,
                "age": str(20 + k % 7 + 10 * y),
                "home": f"h{k // 3}",
                "split": ("train", "train", "train", "val", "test")[k // 3 % 5],
            }
        )
    return table_rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with pets.csv and 90 images of random blots."""
    rng = np.random.default_rng(1)
    for row in make_rows():
        blots = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(blots).resize((24, 24), Image.Resampling.BICUBIC).save(tmp_path / row["image"])
    write_csv(tmp_path, make_rows())
    return tmp_path


def write_csv(folder: Path, table_rows: list[Row]) -> None:
    with (folder / "pets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*table_rows[0]])
        writer.writeheader()
        writer.writerows(table_rows)


@pytest.fixture
def run_audit(raw_config: RawConfig) -> Callable[..., Audit]:
    """A function that audits a folder with pets.csv; `look` is whether to read images, `settings` change `data`."""

    def audit_table(folder: Path, look: bool = True, **settings: Any) -> Audit:
        data = {"name": "table", "path": str(folder / "pets.csv"), "bias": "sky", "split": "split", "size": 24}
        return audit(make_valid_config(raw_config, data | settings), look, iterate_without_progress)

    return audit_table


def make_valid_config(raw_config: RawConfig, data: dict[str, Any]) -> Config:
    raw = raw_config() | {"data": data, "model": {"name": "tiny_networks.TinyNetworks"}}
    return configuration.validate(raw, "test")


def check_content(audit_result: Audit) -> dict[str, Any]:
    """Return the content of check.json of an audit."""
    return audit_result.check.model_dump(exclude_unset=True)


def get_titles(audit_result: Audit, level: str) -> list[str]:
    return [finding["title"] for finding in check_content(audit_result)["findings"] if finding["level"] == level]


def test_every_count_equals_that_of_a_loop(table: Path, run_audit: Callable[..., Audit]) -> None:
    content = check_content(run_audit(table, bias=["sky", {"column": "age", "edges": [30, 40]}]))
    assert content["class_names"] == sorted(CLASSES)
    sky, age, joint = content["biases"]
    assert (sky["name"], age["name"], joint["name"]) == ("sky", "age", "sky and age")
    bins = [lambda a: a < 30, lambda a: 30 <= a < 40, lambda a: a >= 40]
    for split in ("train", "val", "test"):
        split_rows = [row for row in make_rows() if row["split"] == split]
        for k, label in enumerate(content["class_names"]):
            for b, name in enumerate(sky["values"]):
                n = sum(row["label"] == label and row["sky"] == name for row in split_rows)
                assert sky["counts"][split][k][b] == n
            for b, is_in_bin in enumerate(bins):
                n = sum(row["label"] == label and is_in_bin(int(row["age"])) for row in split_rows)
                assert age["counts"][split][k][b] == n
            for b, name in enumerate(joint["values"]):
                value = next((s, i) for s in sky["values"] for i in range(3) if name == f"{s}, {age['values'][i]}")
                n = sum(
                    row["label"] == label and row["sky"] == value[0] and bins[value[1]](int(row["age"]))
                    for row in split_rows
                )
                assert joint["counts"][split][k][b] == n
        assert sky["missing"][split] == pytest.approx(sum(not row["sky"] for row in split_rows) / len(split_rows))
        assert age["missing"][split] == 0
    assert [split["n"] for split in content["splits"]] == [54, 18, 18]


def test_the_majority_class_of_each_bias_value_in_train_is_scored_on_every_split(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    association = check_content(run_audit(table))["biases"][0]["association"]
    known_rows = [row for row in make_rows() if row["sky"]]
    train_rows = [row for row in known_rows if row["split"] == "train"]
    rule = {}
    for sky in SKIES:
        labels = [row["label"] for row in train_rows if row["sky"] == sky]
        rule[sky] = max(sorted(set(labels)), key=labels.count)
    for split in ("train", "val", "test"):
        split_rows = [row for row in known_rows if row["split"] == split]
        num_correct = sum(rule[row["sky"]] == row["label"] for row in split_rows)
        labels = [row["label"] for row in split_rows]
        assert association[split]["bias_only"] == pytest.approx(num_correct / len(split_rows))
        assert association[split]["majority"] == pytest.approx(max(map(labels.count, labels)) / len(split_rows))
        expected = normalized_mutual_info_score(labels, [row["sky"] for row in split_rows])
        assert association[split]["mutual_information"] == pytest.approx(expected)


def test_small_and_empty_groups_are_listed_by_size(table: Path, run_audit: Callable[..., Audit]) -> None:
    content = check_content(run_audit(table))
    cells, counts = content["cells"]["test"], content["biases"][0]["counts"]["test"]
    sorted_counts = sorted(n for row in counts for n in row)
    assert cells["empty"] == sorted_counts.count(0) == len(cells["empty_cells"])
    assert [cell["n"] for cell in cells["small_cells"]] == [n for n in sorted_counts if n]
    assert cells["smallest"]["n"] == min(n for n in sorted_counts if n)
    assert cells["difference"] == pytest.approx(detectable_difference(cells["smallest"]["n"]))


def test_equal_and_similar_images_are_found_within_and_across_splits(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    names = [row["image"] for row in make_rows()]
    shutil.copy(table / names[0], table / names[12])  # train and test, one class
    shutil.copy(table / names[1], table / names[2])  # within train, two classes
    with Image.open(table / names[3]) as image:  # train and val, one class
        image.resize((30, 30)).save(jpeg := io.BytesIO(), "JPEG", quality=80)
    (table / names[9]).write_bytes(jpeg.getvalue())
    audit_result = run_audit(table)
    equal_images, similar_images = (
        check_content(audit_result)["duplicates"]["equal"],
        check_content(audit_result)["duplicates"]["alike"],
    )
    assert {key: equal_images[key] for key in ("sets", "examples", "across", "disagree")} == {
        "sets": 2,
        "examples": 4,
        "across": 1,
        "disagree": 1,
    }
    assert {(pair["within"], pair["of"]): pair["n"] for pair in equal_images["shared"]} == {
        ("train", "val"): 0,
        ("train", "test"): 1,
        ("val", "test"): 0,
    }
    assert [[example["name"] for example in group] for group in equal_images["listed"]] == [
        [str(table / names[0]), str(table / names[12])],
        [str(table / names[1]), str(table / names[2])],
    ]
    assert [[example["split"] for example in pair] for pair in similar_images["listed"]] == [["train", "val"]]
    assert [example["name"] for example in similar_images["listed"][0]] == [
        str(table / names[3]),
        str(table / names[9]),
    ]
    assert audit_result.similar_images is not None
    assert audit_result.similar_images.shape == (1, 2, 3, 24, 24)
    assert get_titles(audit_result, "problem") == ["Equal images in two splits"]
    assert not check_content(audit_result)["trustworthy"]


def damage_images(folder: Path) -> None:
    table_rows = make_rows()
    (folder / table_rows[6]["image"]).unlink()
    (folder / table_rows[7]["image"]).write_bytes(b"no image")
    content = (folder / table_rows[8]["image"]).read_bytes()
    (folder / table_rows[8]["image"]).write_bytes(content[: len(content) // 2])


def test_unreadable_files_are_listed_and_the_audit_continues(table: Path, run_audit: Callable[..., Audit]) -> None:
    damage_images(table)
    with pytest.raises(UserError, match="3 of 90 rows are wrong"):
        Table(Table.Config(path=str(table / "pets.csv"), bias="sky", split="split"))
    stop_result, skip_result = run_audit(table), run_audit(table, on_error="skip")
    assert [line.split(":")[0] for line in check_content(stop_result)["wrong_rows"]] == ["line 8", "line 9", "line 10"]
    assert get_titles(stop_result, "problem") == ["Wrong rows"]
    assert get_titles(skip_result, "problem") == []
    assert "Wrong rows are left out" in get_titles(skip_result, "warning")
    for audit_result in (stop_result, skip_result):
        assert check_content(audit_result)["n"] == check_content(audit_result)["duplicates"]["n"] == 87
        assert check_content(audit_result)["unreadable"] == []


def test_unreadable_files_that_training_does_not_check_are_a_problem(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    damage_images(table)
    audit_result = run_audit(table, check="exist", on_error="skip")
    assert [line.split(":")[0] for line in check_content(audit_result)["unreadable"]] == [
        str(table / make_rows()[k]["image"]) for k in (7, 8)
    ]
    assert (check_content(audit_result)["n"], check_content(audit_result)["duplicates"]["n"]) == (89, 87)
    assert get_titles(audit_result, "problem") == ["Images that cannot be read"]


def test_unreadable_images_are_listed_if_no_image_can_be_read(table: Path, run_audit: Callable[..., Audit]) -> None:
    for row in make_rows():
        (table / row["image"]).write_bytes(b"no image")
    audit_result = run_audit(table, check="exist")
    assert (
        check_content(audit_result)["duplicates"]["n"]
        == check_content(audit_result)["duplicates"]["alike"]["pairs"]
        == 0
    )
    assert len(check_content(audit_result)["unreadable"]) == N
    assert get_titles(audit_result, "problem") == ["Images that cannot be read"]
    with pytest.raises(UserError, match="90 of 90 rows are wrong"):  # no row is left to audit
        run_audit(table, check="read")


def test_without_images_no_file_is_opened(
    table: Path, run_audit: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage_images(table)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("a file was opened"))
    audit_result = run_audit(table, look=False)
    assert check_content(audit_result)["duplicates"] is None
    # Only the missing file is found.
    assert [line.split(":")[0] for line in check_content(audit_result)["wrong_rows"]] == ["line 8"]
    assert "Images not opened" in get_titles(audit_result, "note")


def test_each_image_is_decoded_once(
    table: Path, run_audit: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, decoded_paths = cache.decode, list[Path]()

    def record_and_decode(path: Path, *arguments: Any) -> Any:
        decoded_paths.append(path)
        return decode(path, *arguments)

    monkeypatch.setattr(cache, "decode", record_and_decode)
    run_audit(table)
    assert sorted(decoded_paths) == sorted(table / row["image"] for row in make_rows())


def test_values_of_group_id_in_two_splits_are_listed(table: Path, run_audit: Callable[..., Audit]) -> None:
    table_rows = make_rows()
    table_rows[13]["split"], table_rows[16]["split"] = "train", "val"  # rows of the homes h4 and h5
    write_csv(table, table_rows)
    audit_result = run_audit(table, group_id="home")
    assert check_content(audit_result)["leaking"] == {"column": "home", "groups": ["h4", "h5"]}
    assert get_titles(audit_result, "problem") == ["Values of home in two splits"]
    assert check_content(run_audit(table))["leaking"] is None


def test_group_folders_in_two_splits_are_listed(table: Path, raw_config: RawConfig, tmp_path: Path) -> None:
    for row in make_rows():
        group = "h0" if row["image"] == make_rows()[14]["image"] else row["home"]
        target = tmp_path / "sorted" / row["split"] / group / row["label"].replace("/", "") / (row["sky"] or "day")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(table / row["image"], target)
    data = {"name": "folders", "root": str(tmp_path / "sorted"), "levels": ["split", "group_id", "label", "bias"]}
    audit_result = audit(make_valid_config(raw_config, data | {"size": 24}), False, iterate_without_progress)
    assert check_content(audit_result)["leaking"] == {"column": "group_id", "groups": ["h0"]}
    assert check_content(audit_result)["n"] == N


# Counts (class, bias value) of the training rows, the share of rows without a bias value, the recommended phases.
SITUATIONS = {
    "every group has rows": ([[900, 100], [100, 900]], 0, ["group_dro"]),
    "more than two classes and values": ([[300, 40, 60], [50, 300, 40], [40, 60, 300]], 0, ["group_dro"]),
    "many groups": ((np.full((5, 5), 40) + 200 * np.eye(5, dtype=int)).tolist(), 0, ["reweight"]),
    "some bias values are missing": ([[900, 100], [100, 900]], 0.1, ["reweight"]),
    "most bias values are missing": ([[900, 100], [100, 900]], 0.8, ["lff"]),
    "an empty group": ([[900, 0], [100, 900]], 0, ["bias_product", "bias_head", "lntl"]),
    "a small group": ([[900, 12], [100, 900]], 0, ["bias_product", "bias_head", "lntl"]),
    "the bias nearly determines the label": ([[2000, 40], [40, 2000]], 0, ["bias_product"]),
    "the same, and a group is empty": ([[2000, 0], [40, 2000]], 0, ["bias_product", "bias_head", "lntl"]),
    "the same, and some bias values are missing": (
        [[2000, 40], [40, 2000]],
        0.1,
        ["bias_product", "bias_head", "lntl"],
    ),
    "the bias does not predict the label": ([[500, 500], [500, 500]], 0, ["erm"]),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_recommendation_fits_the_situation_and_its_yaml_is_valid(
    name: str, tmp_path: Path, raw_config: RawConfig
) -> None:
    counts, missing_share, expected = SITUATIONS[name]
    table = np.array(counts)
    y, bias = (index.ravel().repeat(table.ravel()) for index in np.indices(table.shape))
    rng = np.random.default_rng(0)
    bias = np.where(rng.random(len(y)) < missing_share, -1, bias)
    split = np.array(["train"] * len(y) + ["val"] * table.size + ["test"] * table.size)
    cell_y, cell_b = (index.ravel() for index in np.indices(table.shape))
    y, bias = np.concatenate([y, cell_y, cell_y]), np.concatenate([bias, cell_b, cell_b])
    np.savez(tmp_path / "rows.npz", x=rng.normal(size=(len(y), 3)), y=y, bias=bias, split=split)
    data = {"name": "arrays", "path": str(tmp_path / "rows.npz"), "split": "split"}
    content = check_content(audit(make_valid_config(raw_config, data), True, iterate_without_progress))
    assert content["recommendation"]["method"] == expected[-1], content["recommendation"]
    assert content["recommendation"]["reasons"]
    phases = yaml.safe_load(content["recommendation"]["yaml"])["training"]["phases"]
    config = configuration.validate(raw_config(*phases), "test")
    assert [phase.method for phase in config.training.phases] == expected
    assert content["trustworthy"]


def test_equal_vectors_give_only_a_warning(tmp_path: Path, raw_config: RawConfig) -> None:
    k = np.arange(60)
    x = np.stack([k % 3, k % 2], axis=1)  # there are six different vectors, which occur in every split
    np.savez(tmp_path / "rows.npz", x=x, y=k % 3, bias=k // 3 % 2)
    audit_result = audit(
        make_valid_config(raw_config, {"name": "arrays", "path": str(tmp_path / "rows.npz")}),
        True,
        iterate_without_progress,
    )
    assert check_content(audit_result)["duplicates"]["of"] == "vectors"
    assert check_content(audit_result)["duplicates"]["alike"] is None
    assert check_content(audit_result)["duplicates"]["equal"]["sets"] == 6
    assert get_titles(audit_result, "problem") == []
    assert "Equal vectors in two splits" in get_titles(audit_result, "warning")


def test_undefined_measures_of_a_split_with_one_class_are_left_out(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    table_rows = [row for row in make_rows() if row["split"] != "test" or row["label"] == CLASSES[0]]
    write_csv(table, table_rows)
    audit_result = run_audit(table, look=False)
    association = check_content(audit_result)["biases"][0]["association"]["test"]
    assert (association["cramers_v"], association["mutual_information"]) == (None, None)
    assert association["undefined"] == "only one class or one bias value occurs"
    assert "Classes without a test row" in get_titles(audit_result, "warning")
    json.dumps(check_content(audit_result), allow_nan=False)


def test_a_test_set_with_the_bias_of_training_gives_a_warning(table: Path, run_audit: Callable[..., Audit]) -> None:
    table_rows = make_rows()
    for row in table_rows:
        row["sky"] = row["sky"] if row["split"] == "train" else SKIES[CLASSES.index(row["label"])]
    write_csv(table, table_rows)
    audit_result = run_audit(table, look=False)
    assert {"A biased test set", "A biased choice of the epoch"} <= set(get_titles(audit_result, "warning"))


def test_the_chance_accuracy_of_h_is_computed_without_reading_images(
    table: Path, raw_config: RawConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"name": "table", "path": str(table / "pets.csv"), "bias": "sky", "split": "split", "check": "exist"}
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("a file was opened"))
    run = experiment.start(make_valid_config(raw_config, data))
    train_rows = [row for row in make_rows() if row["split"] == "train"]
    labels_by_sky = [[row["label"] for row in train_rows if row["sky"] == sky] for sky in SKIES]
    highest_counts = [max(labels.count(name) for labels in labels_by_sky) for name in CLASSES]
    num_known_rows = sum(map(len, labels_by_sky))
    assert run._bias_chance == pytest.approx(
        (max(map(len, labels_by_sky)) / num_known_rows, sum(highest_counts) / num_known_rows)
    )


def test_test_digits_of_random_colors_give_no_warning_about_bias(make_config: Callable[..., Config]) -> None:
    data = {"max_images": 300, "random_colors": 0.5}
    audit_result = audit(make_config("erm", data=data), True, iterate_without_progress)
    assert check_content(audit_result)["trustworthy"]
    assert "A biased test set" not in get_titles(audit_result, "warning")
    assert check_content(audit_result)["recommendation"]["method"] == "lntl"
    assert "bias_head: pooled" in check_content(audit_result)["recommendation"]["yaml"]
    train = check_content(audit_result)["biases"][0]["association"]["train"]
    assert train["bias_only"] > 0.6 > check_content(audit_result)["biases"][0]["association"]["test"]["bias_only"]


# --- groups that are missing in a split, and data in which the bias determines the class ---

AuditArrays = Callable[..., Audit]


@pytest.fixture
def audit_arrays(tmp_path: Path, raw_config: RawConfig) -> AuditArrays:
    """A function that audits rows with these classes, bias values (-1 if unknown) and splits."""

    def audit_rows(y: Any, bias: Any, split: Any, x: Any = None, **evaluation: Any) -> Audit:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(len(y), 3)) if x is None else x
        np.savez(tmp_path / "rows.npz", x=x, cat=y, night=bias, split=split)
        data = {"name": "arrays", "path": str(tmp_path / "rows.npz"), "label": "cat", "bias": "night", "split": "split"}
        raw = raw_config() | {"data": data, "model": {"name": "tiny_networks.TinyNetworks"}}
        return audit(configuration.validate(raw | {"evaluation": evaluation}, "test"), True, iterate_without_progress)

    return audit_rows


def make_labels(**cells_by_split: tuple[int, list[tuple[int, int]]]) -> tuple[Any, Any, Any]:
    """Return y, bias and split for n rows of each listed (class, bias value) cell of each split."""
    rows = [
        (*cell, split_name) for split_name, (n, cells) in cells_by_split.items() for cell in cells for _ in range(n)
    ]
    y, bias, split = zip(*rows, strict=True)
    return np.array(y), np.array(bias), np.array(split)


ALL_CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def get_finding_text(audit_result: Audit, title: str) -> str:
    return next(finding.text for finding in audit_result.check.findings if finding.title == title)


def test_val_of_one_class_is_a_problem(audit_arrays: AuditArrays) -> None:
    audit_result = audit_arrays(*make_labels(train=(40, ALL_CELLS), val=(50, ALL_CELLS[2:]), test=(40, ALL_CELLS)))
    assert get_titles(audit_result, "problem") == ["One class in val"]
    assert "val, on which the epoch is chosen, has only rows of cat 1" in get_finding_text(
        audit_result, "One class in val"
    )
    assert not audit_result.check.trustworthy


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("worst_group_accuracy", "worst_group_accuracy, by which the epoch is chosen, leaves them out"),
        ("accuracy", "worst_group_accuracy on val leaves them out"),
    ],
)
def test_groups_without_val_or_test_rows_are_listed(audit_arrays: AuditArrays, metric: str, expected: str) -> None:
    audit_result = audit_arrays(
        *make_labels(train=(40, ALL_CELLS), val=(40, ALL_CELLS[:3]), test=(40, ALL_CELLS[1:])), best_model_metric=metric
    )
    text = get_finding_text(audit_result, "Groups without a val row")
    assert text.startswith("1 group of other splits has no val row (cat=1, night=1): ")
    assert expected in text
    assert "1 group of other splits has no test row (cat=0, night=0)" in get_finding_text(
        audit_result, "Groups without a test row"
    )
    assert audit_result.check.cells["test"].absent == 1
    assert audit_result.check.trustworthy


def test_a_group_that_occurs_in_no_split_is_not_a_finding_about_val_or_test(audit_arrays: AuditArrays) -> None:
    audit_result = audit_arrays(
        *make_labels(train=(40, ALL_CELLS[:3]), val=(40, ALL_CELLS[:3]), test=(40, ALL_CELLS[:3]))
    )
    assert "Empty groups in training" in get_titles(audit_result, "warning")
    assert not {"Groups without a val row", "Groups without a test row"} & set(get_titles(audit_result, "warning"))


def test_center_brightness_is_recommended_if_it_predicts_the_class_better(audit_arrays: AuditArrays) -> None:
    y, bias, split = make_labels(train=(60, [(0, 0), (1, 1)]), val=(40, ALL_CELLS), test=(40, ALL_CELLS))
    rng = np.random.default_rng(0)
    x = np.broadcast_to(rng.uniform(0, 255, (len(y), 1, 1, 1)), (len(y), 16, 16, 3)).astype(np.uint8).copy()
    x[:, 4:12, 4:12] = (100 + 100 * bias + rng.uniform(-60, 60, len(y)))[:, None, None, None]
    audit_result = audit_arrays(y, bias, split, x)
    assert audit_result.check.center_brightness_only > audit_result.check.brightness_only
    assert "data.bias: {from: center_brightness, bins: 10}" in get_finding_text(
        audit_result, "The bias determines the class"
    )


def test_plain_training_is_recommended_if_the_bias_determines_the_class(audit_arrays: AuditArrays) -> None:
    y, bias, split = make_labels(train=(60, [(0, 0), (1, 1)]), val=(40, ALL_CELLS), test=(40, ALL_CELLS))
    rng = np.random.default_rng(0)
    brightness = rng.uniform(0, 0.6, len(y)) + 0.3 * bias
    x = (255 * brightness[:, None, None, None] * np.ones((1, 8, 8, 3))).astype(np.uint8)
    audit_result = audit_arrays(y, bias, split, x)
    assert "The bias determines the class" in get_titles(audit_result, "problem")
    text, advice = get_finding_text(audit_result, "The bias determines the class"), audit_result.check.recommendation
    train_brightness = [brightness[(split == "train") & (y == label)] for label in (0, 1)]
    edges = np.quantile(np.concatenate(train_brightness), np.linspace(0, 1, 11)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, values, side="right"), minlength=10) for values in train_brightness]
    accuracy = np.maximum(*counts).sum() / 120
    assert audit_result.check.brightness_only == pytest.approx(accuracy, abs=0.02)
    # Each image has a single brightness.
    assert audit_result.check.center_brightness_only == audit_result.check.brightness_only
    assert (
        f"Brightness in ten bins predicts the class of {audit_result.check.brightness_only:.1%} of the training images"
        in text
    )
    assert advice is not None
    assert advice.method == "erm"
    assert "bias_product" not in advice.yaml
    for phrase in ("counterexamples", "Finer bins", "data.random_colors: 1.0", "from: brightness"):
        assert phrase in text
    assert "no method can distinguish the two" in advice.reasons[0]
    assert 'the problem "The bias determines the class"' in advice.reasons[1]
    assert check_verdict(audit_result.check)[0] == "Not yet"
    assert "there is no problem" not in render_check(audit_result.check, audit_result.similar_images)


def test_random_colors_are_recommended_if_the_mean_color_predicts_the_bias(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    colors = dict(zip(SKIES, [(200, 40, 40), (40, 200, 40), (40, 40, 200)], strict=True)) | {"": (0, 0, 0)}
    for number, row in enumerate(make_rows()):  # a bright or a dark image in the color of the sky
        image = np.broadcast_to(np.array(colors[row["sky"]]) * (0.3, 1.0)[number % 2], (24, 24, 3))
        Image.fromarray(image.astype(np.uint8)).save(table / row["image"])
    check = run_audit(table).check
    assert check.biases[-1].color_accuracy == 1.0
    assert check.recommendation is not None
    assert check.recommendation.method == "erm"
    assert check.recommendation.title == "Plain training in random colors"
    assert check.recommendation.yaml.startswith("data:\n  random_colors: 1.0 ")
    assert (
        "The mean color of an image predicts sky, with a balanced accuracy of 100.0% on val (chance: 33.3%)."
        in check.recommendation.reasons
    )
    for settings in ({"random_colors": 0.5}, {"grayscale": True}):
        recommendation = run_audit(table, **settings).check.recommendation
        assert recommendation is not None
        assert "random_colors" not in recommendation.yaml


def test_inverted_channels_are_recommended_if_the_contrast_predicts_the_bias(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    colors = dict(zip(SKIES, [(200, 40, 40), (40, 200, 40), (40, 40, 200)], strict=True)) | {"": (0, 0, 0)}
    for number, row in enumerate(make_rows()):  # under one sky, the middle is brighter than the frame, else darker
        image = np.full((24, 24, 3), colors[row["sky"]], dtype=np.uint8)
        image[6:18, 6:18] = 255 if row["sky"] == SKIES[0] else number % 20
        Image.fromarray(image).save(table / row["image"])
    check = run_audit(table).check
    assert check.biases[-1].contrast_accuracy is not None
    assert check.biases[-1].contrast_accuracy >= 2 / 3
    assert check.recommendation is not None
    assert yaml.safe_load(check.recommendation.yaml)["data"] == {"random_colors": 1.0, "random_invert": 0.5}
    assert any("How much brighter the middle of an image is" in reason for reason in check.recommendation.reasons)
    bias = check.biases[-1].model_copy(update={"contrast_accuracy": 0.42})  # a skill of 0.13
    advice = recommend(check.model_copy(update={"biases": [bias]}), 32, pooled=False, random_colors=True)
    assert yaml.safe_load(advice.yaml)["data"] == {"random_colors": 1.0}


@pytest.mark.parametrize(("difference", "expected"), [(0.002, 0.5), (0.5, 1.0)])
def test_only_clear_contrasts_predict_a_bias(difference: float, expected: float) -> None:
    """Contrasts that differ as little as rounded pixels make them differ are as good as equal."""
    value = np.arange(4000) % 2
    contrast = np.repeat(difference * value[:, None], 3, axis=1).astype(np.float32)
    x = contrast_features(contrast)
    accuracy = neighbour_accuracy(x[:3000], value[:3000], x[3000:], value[3000:])
    assert accuracy == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(("color_accuracy", "recommended"), [(0.6, True), (0.48, False)])
def test_a_weaker_color_is_enough_if_the_bias_determines_the_class(
    table: Path, run_audit: Callable[..., Audit], color_accuracy: float, recommended: bool
) -> None:
    check = run_audit(table).check
    (bias,) = check.biases
    assert len(bias.values) == 3  # a skill of 0.4 or 0.22
    association = bias.association["train"].model_copy(update={"bias_only": 1.0})
    bias = bias.model_copy(
        update={"association": bias.association | {"train": association}, "color_accuracy": color_accuracy}
    )
    advice = recommend(check.model_copy(update={"biases": [bias]}), 32, pooled=False, random_colors=True)
    assert advice.method == "erm"
    assert (advice.title == "Plain training in random colors") == recommended
    assert ("random_colors" in advice.yaml) == recommended
    assert "no method can distinguish the two" in " ".join(advice.reasons)
    # Between bias and class there are also other rows here: the mean color of the image must predict more.
    assert (
        "random_colors"
        not in recommend(
            check.model_copy(update={"biases": [bias.model_copy(update={"association": check.biases[0].association})]}),
            32,
            pooled=False,
            random_colors=True,
        ).yaml
    )


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"),
    [(60_000, 128, [3, 1, 6]), (420, 12, [3, 1, 6]), (360, 24, [9, 3, 18]), (20, 32, [105, 35, 210])],
)
def test_with_few_rows_each_recommended_phase_has_more_epochs(
    table: Path, run_audit: Callable[..., Audit], rows: int, batch_size: int, epochs: list[int]
) -> None:
    check = run_audit(table).check
    check.splits[0].n = rows
    check.cells["train"].small = 1
    advice = recommend(check, batch_size, pooled=False, random_colors=False)
    phases = yaml.safe_load(advice.yaml)["training"]["phases"]
    assert [phase["method"] for phase in phases] == ["bias_product", "bias_head", "lntl"]
    assert [phase["epochs"] for phase in phases] == epochs
    assert sum(epochs) * -(-rows // batch_size) >= 350


def test_random_colors_are_not_recommended_if_the_color_says_nothing(
    table: Path, run_audit: Callable[..., Audit]
) -> None:
    check = run_audit(table).check  # random blots
    assert check.biases[-1].color_accuracy is not None
    assert check.biases[-1].color_accuracy < 0.6
    assert check.recommendation is not None
    assert "random_colors" not in check.recommendation.yaml
    assert run_audit(table, look=False).check.biases[-1].color_accuracy is None


def test_with_one_conflicting_row_the_bias_does_not_determine_the_class(audit_arrays: AuditArrays) -> None:
    y, bias, split = make_labels(train=(60, [(0, 0), (1, 1)]), val=(40, ALL_CELLS), test=(40, ALL_CELLS))
    bias[0] = 1
    assert "The bias determines the class" not in get_titles(audit_arrays(y, bias, split), "problem")


def test_many_possible_groups_are_audited_without_a_dense_table(audit_arrays: AuditArrays) -> None:
    rng = np.random.default_rng(0)
    y, bias = np.arange(1500) // 3 % 400, rng.permutation(1500) % 400  # 400 classes and values
    audit_result = audit_arrays(y, bias, np.array(["train", "val", "test"])[np.arange(1500) % 3])
    assert audit_result.check.biases[0].counts == {"train": [], "val": [], "test": []}
    cells = audit_result.check.cells["train"]
    assert cells.empty == 160_000 - len(set(zip(y[::3].tolist(), bias[::3].tolist(), strict=True)))
    assert len(cells.empty_cells) == 12
    assert cells.absent > 12 == len(cells.absent_cells)
    assert "are too many to draw" in render_check(audit_result.check, None)
    assert any(
        "400 x 400 groups are too many to show" in table
        for table in check_tables(audit_result.check)
        if isinstance(table, str)
    )
