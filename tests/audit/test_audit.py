"""The audit of data: its counts compared with loops over the rows, its findings, and the method that it recommends."""

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
from lntl.audit.association import detectable_difference
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


def watch(parts: Sequence[Any], name: str) -> Iterable[Any]:
    return parts


def rows() -> list[Row]:
    """Return 90 rows of three classes; the sky mostly indicates the class and is sometimes missing."""
    random, made = np.random.default_rng(0), []
    for k in range(N):
        y = k % 3
        sky = SKIES[y if random.random() < 0.8 else int(random.integers(3))]
        made.append(
            {
                "image": f"tier {k:02d} é.png",
                "label": CLASSES[y],
                "sky": "" if k % 15 == 4 else sky,
                "age": str(20 + k % 7 + 10 * y),
                "home": f"h{k // 3}",
                "split": ("train", "train", "train", "val", "test")[k // 3 % 5],
            }
        )
    return made


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder of 90 pictures of random blots and pets.csv."""
    random = np.random.default_rng(1)
    for row in rows():
        blots = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(blots).resize((24, 24), Image.Resampling.BICUBIC).save(tmp_path / row["image"])
    write(tmp_path, rows())
    return tmp_path


def write(folder: Path, made: list[Row]) -> None:
    with (folder / "pets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*made[0]])
        writer.writeheader()
        writer.writerows(made)


@pytest.fixture
def check(raw_config: RawConfig) -> Callable[..., Audit]:
    """A function from a folder with pets.csv, settings of `data` and whether to look at images to the audit."""

    def made(folder: Path, look: bool = True, **settings: Any) -> Audit:
        data = {"name": "table", "path": str(folder / "pets.csv"), "bias": "sky", "split": "split", "size": 24}
        return audit(validated(raw_config, data | settings), look, watch)

    return made


def validated(raw_config: RawConfig, data: dict[str, Any]) -> Config:
    raw = raw_config() | {"data": data, "model": {"name": "tiny_networks.TinyNetworks"}}
    return configuration.validate(raw, "test")


def facts(found: Audit) -> dict[str, Any]:
    """Return what an audit writes into check.json."""
    return found.check.model_dump(exclude_unset=True)


def titles(found: Audit, level: str) -> list[str]:
    return [each["title"] for each in facts(found)["findings"] if each["level"] == level]


def test_every_count_equals_that_of_a_loop(table: Path, check: Callable[..., Audit]) -> None:
    content = facts(check(table, bias=["sky", {"column": "age", "edges": [30, 40]}]))
    assert content["class_names"] == sorted(CLASSES)
    sky, age, joint = content["biases"]
    assert (sky["name"], age["name"], joint["name"]) == ("sky", "age", "sky and age")
    bins = [lambda a: a < 30, lambda a: 30 <= a < 40, lambda a: a >= 40]
    for split in ("train", "val", "test"):
        here = [row for row in rows() if row["split"] == split]
        for k, label in enumerate(content["class_names"]):
            for b, name in enumerate(sky["values"]):
                n = sum(row["label"] == label and row["sky"] == name for row in here)
                assert sky["counts"][split][k][b] == n
            for b, inside in enumerate(bins):
                n = sum(row["label"] == label and inside(int(row["age"])) for row in here)
                assert age["counts"][split][k][b] == n
            for b, name in enumerate(joint["values"]):
                value = next((s, i) for s in sky["values"] for i in range(3) if name == f"{s}, {age['values'][i]}")
                n = sum(
                    row["label"] == label and row["sky"] == value[0] and bins[value[1]](int(row["age"])) for row in here
                )
                assert joint["counts"][split][k][b] == n
        assert sky["missing"][split] == pytest.approx(sum(not row["sky"] for row in here) / len(here))
        assert age["missing"][split] == 0
    assert [each["n"] for each in content["splits"]] == [54, 18, 18]


def test_the_rule_of_training_is_scored_on_every_split(table: Path, check: Callable[..., Audit]) -> None:
    of_bias = facts(check(table))["biases"][0]["association"]
    known = [row for row in rows() if row["sky"]]
    train = [row for row in known if row["split"] == "train"]
    rule = {}
    for sky in SKIES:
        labels = [row["label"] for row in train if row["sky"] == sky]
        rule[sky] = max(sorted(set(labels)), key=labels.count)
    for split in ("train", "val", "test"):
        here = [row for row in known if row["split"] == split]
        right = sum(rule[row["sky"]] == row["label"] for row in here)
        labels = [row["label"] for row in here]
        assert of_bias[split]["bias_only"] == pytest.approx(right / len(here))
        assert of_bias[split]["majority"] == pytest.approx(max(map(labels.count, labels)) / len(here))
        expected = normalized_mutual_info_score(labels, [row["sky"] for row in here])
        assert of_bias[split]["mutual_information"] == pytest.approx(expected)


def test_small_and_empty_groups_are_listed_by_size(table: Path, check: Callable[..., Audit]) -> None:
    content = facts(check(table))
    cells, counts = content["cells"]["test"], content["biases"][0]["counts"]["test"]
    flat = sorted(n for row in counts for n in row)
    assert cells["empty"] == flat.count(0) == len(cells["empty_cells"])
    assert [each["n"] for each in cells["small_cells"]] == [n for n in flat if n]
    assert cells["smallest"]["n"] == min(n for n in flat if n)
    assert cells["difference"] == pytest.approx(detectable_difference(cells["smallest"]["n"]))


def test_equal_and_similar_images_are_found_within_and_across_splits(table: Path, check: Callable[..., Audit]) -> None:
    names = [row["image"] for row in rows()]
    shutil.copy(table / names[0], table / names[12])  # train and test, one class
    shutil.copy(table / names[1], table / names[2])  # within train, two classes
    with Image.open(table / names[3]) as image:  # train and val, one class
        image.resize((30, 30)).save(stored := io.BytesIO(), "JPEG", quality=80)
    (table / names[9]).write_bytes(stored.getvalue())
    found = check(table)
    equal, alike = facts(found)["duplicates"]["equal"], facts(found)["duplicates"]["alike"]
    assert {key: equal[key] for key in ("sets", "examples", "across", "disagree")} == {
        "sets": 2,
        "examples": 4,
        "across": 1,
        "disagree": 1,
    }
    assert {(each["within"], each["of"]): each["n"] for each in equal["shared"]} == {
        ("train", "val"): 0,
        ("train", "test"): 1,
        ("val", "test"): 0,
    }
    assert [[each["name"] for each in one] for one in equal["listed"]] == [
        [str(table / names[0]), str(table / names[12])],
        [str(table / names[1]), str(table / names[2])],
    ]
    assert [[each["split"] for each in pair] for pair in alike["listed"]] == [["train", "val"]]
    assert [each["name"] for each in alike["listed"][0]] == [str(table / names[3]), str(table / names[9])]
    assert found.pictures is not None
    assert found.pictures.shape == (1, 2, 3, 24, 24)
    assert titles(found, "problem") == ["Equal images in two splits"]
    assert not facts(found)["trustworthy"]


def spoil(folder: Path) -> None:
    made = rows()
    (folder / made[6]["image"]).unlink()
    (folder / made[7]["image"]).write_bytes(b"no image")
    whole = (folder / made[8]["image"]).read_bytes()
    (folder / made[8]["image"]).write_bytes(whole[: len(whole) // 2])


def test_unreadable_files_are_named_and_the_audit_goes_on(table: Path, check: Callable[..., Audit]) -> None:
    spoil(table)
    with pytest.raises(UserError, match="3 of 90 rows are wrong"):
        Table(Table.Config(path=str(table / "pets.csv"), bias="sky", split="split", size=24))
    stopping, skipping = check(table), check(table, on_error="skip")
    assert [line.split(":")[0] for line in facts(stopping)["wrong_rows"]] == ["line 8", "line 9", "line 10"]
    assert titles(stopping, "problem") == ["Wrong rows"]
    assert titles(skipping, "problem") == []
    assert "Wrong rows are left out" in titles(skipping, "warning")
    for found in (stopping, skipping):
        assert facts(found)["n"] == facts(found)["duplicates"]["n"] == 87
        assert facts(found)["unreadable"] == []


def test_files_that_training_would_not_check_are_a_problem_for_each_on_error(
    table: Path, check: Callable[..., Audit]
) -> None:
    spoil(table)
    found = check(table, check="exist", on_error="skip")
    assert [line.split(":")[0] for line in facts(found)["unreadable"]] == [
        str(table / rows()[k]["image"]) for k in (7, 8)
    ]
    assert (facts(found)["n"], facts(found)["duplicates"]["n"]) == (89, 87)
    assert titles(found, "problem") == ["Images that cannot be read"]


def test_unreadable_images_are_named_if_no_image_can_be_read(table: Path, check: Callable[..., Audit]) -> None:
    for row in rows():
        (table / row["image"]).write_bytes(b"no image")
    found = check(table, check="exist")
    assert facts(found)["duplicates"]["n"] == facts(found)["duplicates"]["alike"]["pairs"] == 0
    assert len(facts(found)["unreadable"]) == N
    assert titles(found, "problem") == ["Images that cannot be read"]
    with pytest.raises(UserError, match="90 of 90 rows are wrong"):  # no row is left to audit
        check(table, check="read")


def test_without_images_no_file_is_opened(
    table: Path, check: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(table)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("a file was opened"))
    found = check(table, look=False)
    assert facts(found)["duplicates"] is None
    assert [line.split(":")[0] for line in facts(found)["wrong_rows"]] == ["line 8"]  # the one that is not there
    assert "Images not opened" in titles(found, "note")


def test_each_image_is_decoded_once(table: Path, check: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch) -> None:
    decode, opened = cache.decode, list[Path]()

    def counted(path: Path, *rest: Any) -> Any:
        opened.append(path)
        return decode(path, *rest)

    monkeypatch.setattr(cache, "decode", counted)
    check(table)
    assert sorted(opened) == sorted(table / row["image"] for row in rows())


def test_values_of_group_id_in_two_splits_are_listed(table: Path, check: Callable[..., Audit]) -> None:
    made = rows()
    made[13]["split"], made[16]["split"] = "train", "val"  # of h4, h5
    write(table, made)
    found = check(table, group_id="home")
    assert facts(found)["leaking"] == {"column": "home", "groups": ["h4", "h5"]}
    assert titles(found, "problem") == ["Values of home in two splits"]
    assert facts(check(table))["leaking"] is None


def test_leaking_groups_of_folders_are_named(table: Path, raw_config: RawConfig, tmp_path: Path) -> None:
    for row in rows():
        group = "h0" if row["image"] == rows()[14]["image"] else row["home"]
        to = tmp_path / "sorted" / row["split"] / group / row["label"].replace("/", "") / (row["sky"] or "day")
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(table / row["image"], to)
    data = {"name": "folders", "root": str(tmp_path / "sorted"), "levels": ["split", "group_id", "label", "bias"]}
    found = audit(validated(raw_config, data | {"size": 24}), False, watch)
    assert facts(found)["leaking"] == {"column": "group_id", "groups": ["h0"]}
    assert facts(found)["n"] == N


# Tables (class, bias value) of the training rows, with the share of them whose bias is missing, and what suits them.
SITUATIONS = {
    "every group has rows": ([[900, 100], [100, 900]], 0, "group_dro"),
    "more than two classes and values": ([[300, 40, 60], [50, 300, 40], [40, 60, 300]], 0, "group_dro"),
    "many groups": ((np.full((5, 5), 40) + 200 * np.eye(5, dtype=int)).tolist(), 0, "reweight"),
    "bias missing in part": ([[900, 100], [100, 900]], 0.1, "reweight"),
    "bias mostly missing": ([[900, 100], [100, 900]], 0.8, "lff"),
    "an empty group": ([[900, 0], [100, 900]], 0, "lntl"),
    "a small group": ([[900, 12], [100, 900]], 0, "lntl"),
    "the bias nearly tells the label": ([[2000, 40], [40, 2000]], 0, "lntl"),
    "the bias does not predict the label": ([[500, 500], [500, 500]], 0, "erm"),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_recommendation_fits_the_situation_and_its_yaml_is_valid(
    name: str, tmp_path: Path, raw_config: RawConfig
) -> None:
    counts, missing, expected = SITUATIONS[name]
    table = np.array(counts)
    y, bias = (place.ravel().repeat(table.ravel()) for place in np.indices(table.shape))
    random = np.random.default_rng(0)
    bias = np.where(random.random(len(y)) < missing, -1, bias)
    split = np.array(["train"] * len(y) + ["val"] * table.size + ["test"] * table.size)
    every_y, every_b = (place.ravel() for place in np.indices(table.shape))
    y, bias = np.concatenate([y, every_y, every_y]), np.concatenate([bias, every_b, every_b])
    np.savez(tmp_path / "own.npz", x=random.normal(size=(len(y), 3)), y=y, bias=bias, split=split)
    data = {"name": "arrays", "path": str(tmp_path / "own.npz"), "split": "split"}
    content = facts(audit(validated(raw_config, data), True, watch))
    assert content["recommendation"]["method"] == expected, content["recommendation"]
    assert content["recommendation"]["reasons"]
    phases = yaml.safe_load(content["recommendation"]["yaml"])["training"]["phases"]
    config = configuration.validate(raw_config(*phases), "test")
    assert config.training.phases[-1].method == expected
    assert content["trustworthy"]


def test_equal_vectors_are_only_a_warning(tmp_path: Path, raw_config: RawConfig) -> None:
    k = np.arange(60)
    x = np.stack([k % 3, k % 2], axis=1)  # six vectors, all in every split
    np.savez(tmp_path / "own.npz", x=x, y=k % 3, bias=k // 3 % 2)
    found = audit(validated(raw_config, {"name": "arrays", "path": str(tmp_path / "own.npz")}), True, watch)
    assert facts(found)["duplicates"]["of"] == "vectors"
    assert facts(found)["duplicates"]["alike"] is None
    assert facts(found)["duplicates"]["equal"]["sets"] == 6
    assert titles(found, "problem") == []
    assert "Equal vectors in two splits" in titles(found, "warning")


def test_undefined_measures_of_a_split_with_one_class_are_left_out(table: Path, check: Callable[..., Audit]) -> None:
    made = [row for row in rows() if row["split"] != "test" or row["label"] == CLASSES[0]]
    write(table, made)
    found = check(table, look=False)
    of_bias = facts(found)["biases"][0]["association"]["test"]
    assert (of_bias["cramers_v"], of_bias["mutual_information"]) == (None, None)
    assert of_bias["undefined"] == "only one class or one bias value occurs"
    assert "Classes without a test row" in titles(found, "warning")
    json.dumps(facts(found), allow_nan=False)


def test_a_test_set_with_the_bias_of_training_is_pointed_out(table: Path, check: Callable[..., Audit]) -> None:
    made = rows()
    for row in made:
        row["sky"] = row["sky"] if row["split"] == "train" else SKIES[CLASSES.index(row["label"])]
    write(table, made)
    found = check(table, look=False)
    assert {"A biased test set", "A biased choice of the epoch"} <= set(titles(found, "warning"))


def test_probe_labels_and_the_chance_accuracy_of_h_need_no_image_file(
    table: Path, raw_config: RawConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"name": "table", "path": str(table / "pets.csv"), "bias": "sky", "split": "split", "check": "exist"}
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("a file was opened"))
    run = experiment.start(validated(raw_config, data))
    train = [row for row in rows() if row["split"] == "train"]
    by_sky = [[row["label"] for row in train if row["sky"] == sky] for sky in SKIES]
    most = [max(sum(label == each for label in labels) for labels in by_sky) for each in CLASSES]
    known = sum(map(len, by_sky))
    assert run._bias_chance == pytest.approx((max(map(len, by_sky)) / known, sum(most) / known))


def test_digits_of_random_colours_have_no_such_warning(make_config: Callable[..., Config]) -> None:
    found = audit(make_config("erm", data={"max_images": 300}), True, watch)
    assert facts(found)["trustworthy"]
    assert "A biased test set" not in titles(found, "warning")
    assert facts(found)["recommendation"]["method"] == "lntl"
    assert "bias_head: pooled" in facts(found)["recommendation"]["yaml"]
    train = facts(found)["biases"][0]["association"]["train"]
    assert train["bias_only"] > 0.6 > facts(found)["biases"][0]["association"]["test"]["bias_only"]


# --- what a split lacks, and data in which the bias determines the class ---

Arrays = Callable[..., Audit]


@pytest.fixture
def arrays(tmp_path: Path, raw_config: RawConfig) -> Arrays:
    """A function from class, bias value (-1: unknown) and split of rows to the audit of data that have them."""

    def made(y: Any, bias: Any, split: Any, x: Any = None, **evaluation: Any) -> Audit:
        random = np.random.default_rng(0)
        x = random.normal(size=(len(y), 3)) if x is None else x
        np.savez(tmp_path / "own.npz", x=x, cat=y, night=bias, split=split)
        data = {"name": "arrays", "path": str(tmp_path / "own.npz"), "label": "cat", "bias": "night", "split": "split"}
        raw = raw_config() | {"data": data, "model": {"name": "tiny_networks.TinyNetworks"}}
        return audit(configuration.validate(raw | {"evaluation": evaluation}, "test"), True, watch)

    return made


def spread(**parts: tuple[int, list[tuple[int, int]]]) -> tuple[Any, Any, Any]:
    """Return y, bias and split of n rows of each of some (class, bias value) cells in each part."""
    rows = [(*cell, part) for part, (n, cells) in parts.items() for cell in cells for _ in range(n)]
    y, bias, split = zip(*rows, strict=True)
    return np.array(y), np.array(bias), np.array(split)


ALL = [(0, 0), (0, 1), (1, 0), (1, 1)]


def sentence(found: Audit, title: str) -> str:
    return next(finding.text for finding in found.check.findings if finding.title == title)


def test_val_of_one_class_is_a_problem(arrays: Arrays) -> None:
    found = arrays(*spread(train=(40, ALL), val=(50, ALL[2:]), test=(40, ALL)))
    assert titles(found, "problem") == ["One class in val"]
    assert "val, on which the epoch is chosen, has only rows of cat 1" in sentence(found, "One class in val")
    assert not found.check.trustworthy


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("worst_group_accuracy", "worst_group_accuracy, by which the epoch is chosen, leaves them out"),
        ("accuracy", "worst_group_accuracy on val leaves them out"),
    ],
)
def test_groups_without_val_or_test_rows_are_listed(arrays: Arrays, metric: str, expected: str) -> None:
    found = arrays(*spread(train=(40, ALL), val=(40, ALL[:3]), test=(40, ALL[1:])), best_model_metric=metric)
    text = sentence(found, "Groups without a val row")
    assert text.startswith("1 group of other splits has no val row (cat=1, night=1): ")
    assert expected in text
    assert "1 group of other splits has no test row (cat=0, night=0)" in sentence(found, "Groups without a test row")
    assert found.check.cells["test"].absent == 1
    assert found.check.trustworthy


def test_a_group_that_occurs_in_no_split_is_not_a_finding_about_val_or_test(arrays: Arrays) -> None:
    found = arrays(*spread(train=(40, ALL[:3]), val=(40, ALL[:3]), test=(40, ALL[:3])))
    assert "Empty groups in training" in titles(found, "warning")
    assert not {"Groups without a val row", "Groups without a test row"} & set(titles(found, "warning"))


def test_the_brightness_of_the_middle_is_recommended_if_it_predicts_the_class_better(arrays: Arrays) -> None:
    y, bias, split = spread(train=(60, [(0, 0), (1, 1)]), val=(40, ALL), test=(40, ALL))
    random = np.random.default_rng(0)
    x = np.broadcast_to(random.uniform(0, 255, (len(y), 1, 1, 1)), (len(y), 16, 16, 3)).astype(np.uint8).copy()
    x[:, 4:12, 4:12] = (100 + 100 * bias + random.uniform(-60, 60, len(y)))[:, None, None, None]
    found = arrays(y, bias, split, x)
    assert found.check.center_brightness_only > found.check.brightness_only
    assert "data.bias: {from: center_brightness, bins: 10}" in sentence(found, "The bias determines the class")


def test_plain_training_is_recommended_if_the_bias_determines_the_class(arrays: Arrays) -> None:
    y, bias, split = spread(train=(60, [(0, 0), (1, 1)]), val=(40, ALL), test=(40, ALL))
    random = np.random.default_rng(0)
    light = random.uniform(0, 0.6, len(y)) + 0.3 * bias
    x = (255 * light[:, None, None, None] * np.ones((1, 8, 8, 3))).astype(np.uint8)
    found = arrays(y, bias, split, x)
    assert "The bias determines the class" in titles(found, "problem")
    text, advice = sentence(found, "The bias determines the class"), found.check.recommendation
    train = [light[(split == "train") & (y == label)] for label in (0, 1)]
    edges = np.quantile(np.concatenate(train), np.linspace(0, 1, 11)[1:-1])
    counts = [np.bincount(np.searchsorted(edges, part, side="right"), minlength=10) for part in train]
    right = np.maximum(*counts).sum() / 120
    assert found.check.brightness_only == pytest.approx(right, abs=0.02)
    assert found.check.center_brightness_only == found.check.brightness_only  # the images are even
    assert f"brightness in ten bins gives the class of {found.check.brightness_only:.1%} of the training images" in text
    assert advice is not None
    assert advice.method == "erm"
    assert "bias_product" not in advice.yaml
    for needed in (
        "no method can distinguish the two",
        "counterexamples",
        "Finer bins",
        "If no measure overlaps",
        "from: brightness",
    ):
        assert needed in " ".join(advice.reasons)
    assert check_verdict(found.check)[0] == "Not yet"
    assert "there is no problem" not in render_check(found.check, found.pictures)


def test_with_one_conflicting_row_the_bias_does_not_determine_the_class(arrays: Arrays) -> None:
    y, bias, split = spread(train=(60, [(0, 0), (1, 1)]), val=(40, ALL), test=(40, ALL))
    bias[0] = 1
    assert "The bias determines the class" not in titles(arrays(y, bias, split), "problem")


def test_the_cost_of_many_groups_grows_only_with_the_rows(arrays: Arrays) -> None:
    random = np.random.default_rng(0)
    y, bias = np.arange(1500) // 3 % 400, random.permutation(1500) % 400  # all in train
    found = arrays(y, bias, np.array(["train", "val", "test"])[np.arange(1500) % 3])
    assert found.check.biases[0].counts == {"train": [], "val": [], "test": []}
    cells = found.check.cells["train"]
    assert cells.empty == 160_000 - len(set(zip(y[::3].tolist(), bias[::3].tolist(), strict=True)))
    assert len(cells.empty_cells) == 12
    assert cells.absent > 12 == len(cells.absent_cells)
    assert "are too many to draw" in render_check(found.check, None)
    assert any(
        "400 x 400 groups are too many to show" in part for part in check_tables(found.check) if isinstance(part, str)
    )
