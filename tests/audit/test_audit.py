"""The audit of data: every count against loops over the rows, what it finds, and which method it recommends."""

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
from lntl.audit.association import detectable_difference
from lntl.audit.facts import Audit, audit
from lntl.config import Config
from lntl.data import cache
from lntl.data.table import Table
from lntl.errors import UserError

RawConfig = Callable[..., dict[str, Any]]
Row = dict[str, str]
CLASSES, SKIES = ("katze <b>", "dog & co", "[red]eel|ö"), ("day", "night", "dämmerung")
N = 90


def watch(parts: Sequence[Any], name: str) -> Iterable[Any]:
    return parts


def rows() -> list[Row]:
    """Return 90 rows of three classes; the sky mostly goes with the class and lacks now and then."""
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


def titles(found: Audit, level: str) -> list[str]:
    return [each["title"] for each in found.facts["findings"] if each["level"] == level]


def test_every_count_is_that_of_a_loop(table: Path, check: Callable[..., Audit]) -> None:
    facts = check(table, bias=["sky", {"column": "age", "edges": [30, 40]}]).facts
    assert facts["class_names"] == sorted(CLASSES)
    sky, age, joint = facts["biases"]
    assert (sky["name"], age["name"], joint["name"]) == ("sky", "age", "sky and age")
    bins = [lambda a: a < 30, lambda a: 30 <= a < 40, lambda a: a >= 40]
    for split in ("train", "val", "test"):
        here = [row for row in rows() if row["split"] == split]
        for k, label in enumerate(facts["class_names"]):
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
    assert [each["n"] for each in facts["splits"]] == [54, 18, 18]


def test_the_rule_of_training_is_scored_on_every_split(table: Path, check: Callable[..., Audit]) -> None:
    told = check(table).facts["biases"][0]["association"]
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
        assert told[split]["bias_only"] == pytest.approx(right / len(here))
        assert told[split]["majority"] == pytest.approx(max(map(labels.count, labels)) / len(here))
        expected = normalized_mutual_info_score(labels, [row["sky"] for row in here])
        assert told[split]["mutual_information"] == pytest.approx(expected)


def test_small_and_empty_cells_are_named_the_smallest_first(table: Path, check: Callable[..., Audit]) -> None:
    facts = check(table).facts
    cells, counts = facts["cells"]["test"], facts["biases"][0]["counts"]["test"]
    flat = sorted(n for row in counts for n in row)
    assert cells["empty"] == flat.count(0) == len(cells["empty_cells"])
    assert [each["n"] for each in cells["small_cells"]] == [n for n in flat if n]
    assert cells["smallest"]["n"] == min(n for n in flat if n)
    assert cells["difference"] == pytest.approx(detectable_difference(cells["smallest"]["n"]))


def test_equal_and_alike_images_are_found_within_and_across_splits(table: Path, check: Callable[..., Audit]) -> None:
    names = [row["image"] for row in rows()]
    shutil.copy(table / names[0], table / names[12])  # train and test, one class
    shutil.copy(table / names[1], table / names[2])  # within train, two classes
    with Image.open(table / names[3]) as image:  # train and val, one class
        image.resize((30, 30)).save(stored := io.BytesIO(), "JPEG", quality=80)
    (table / names[9]).write_bytes(stored.getvalue())
    found = check(table)
    equal, alike = found.facts["duplicates"]["equal"], found.facts["duplicates"]["alike"]
    assert {key: equal[key] for key in ("sets", "examples", "across", "disagree")} == {
        "sets": 2,
        "examples": 4,
        "across": 1,
        "disagree": 1,
    }
    assert {(each["in"], each["of"]): each["n"] for each in equal["shared"]} == {
        ("train", "val"): 0,
        ("train", "test"): 1,
        ("val", "test"): 0,
    }
    assert [[each["name"] for each in one] for one in equal["told"]] == [
        [str(table / names[0]), str(table / names[12])],
        [str(table / names[1]), str(table / names[2])],
    ]
    assert [[each["split"] for each in pair] for pair in alike["told"]] == [["train", "val"]]
    assert [each["name"] for each in alike["told"][0]] == [str(table / names[3]), str(table / names[9])]
    assert found.pictures is not None
    assert found.pictures.shape == (1, 2, 3, 24, 24)
    assert titles(found, "problem") == ["Equal images in two splits"]
    assert not found.facts["trustworthy"]


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
    assert [line.split(":")[0] for line in stopping.facts["wrong_rows"]] == ["line 8", "line 9", "line 10"]
    assert titles(stopping, "problem") == ["Rows that are wrong"]
    assert titles(skipping, "problem") == []
    assert "Rows that are left out" in titles(skipping, "warning")
    for found in (stopping, skipping):
        assert found.facts["n"] == found.facts["duplicates"]["n"] == 87
        assert found.facts["unreadable"] == []


def test_files_that_training_would_not_check_are_a_problem_whatever_on_error_says(
    table: Path, check: Callable[..., Audit]
) -> None:
    spoil(table)
    found = check(table, check="exist", on_error="skip")
    assert [line.split(":")[0] for line in found.facts["unreadable"]] == [
        str(table / rows()[k]["image"]) for k in (7, 8)
    ]
    assert (found.facts["n"], found.facts["duplicates"]["n"]) == (89, 87)
    assert titles(found, "problem") == ["Images that cannot be read"]


def test_where_no_image_can_be_read_they_are_named(table: Path, check: Callable[..., Audit]) -> None:
    for row in rows():
        (table / row["image"]).write_bytes(b"no image")
    found = check(table, check="exist")
    assert found.facts["duplicates"]["n"] == found.facts["duplicates"]["alike"]["pairs"] == 0
    assert len(found.facts["unreadable"]) == N
    assert titles(found, "problem") == ["Images that cannot be read"]
    with pytest.raises(UserError, match="90 of 90 rows are wrong"):  # no row is left of which to tell anything
        check(table, check="read")


def test_without_images_no_file_is_opened(
    table: Path, check: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(table)
    monkeypatch.setattr(cache, "decode", lambda *_: pytest.fail("a file was opened"))
    found = check(table, look=False)
    assert found.facts["duplicates"] is None
    assert [line.split(":")[0] for line in found.facts["wrong_rows"]] == ["line 8"]  # the one that is not there
    assert "Images not looked at" in titles(found, "note")


def test_each_image_is_decoded_once(table: Path, check: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch) -> None:
    decode, opened = cache.decode, list[Path]()

    def counted(path: Path, *rest: Any) -> Any:
        opened.append(path)
        return decode(path, *rest)

    monkeypatch.setattr(cache, "decode", counted)
    check(table)
    assert sorted(opened) == sorted(table / row["image"] for row in rows())


def test_leaking_groups_are_named(table: Path, check: Callable[..., Audit]) -> None:
    made = rows()
    made[13]["split"], made[16]["split"] = "train", "val"  # of h4, h5
    write(table, made)
    found = check(table, group_id="home")
    assert found.facts["leaking"] == {"column": "home", "groups": ["h4", "h5"]}
    assert titles(found, "problem") == ["Groups in two splits"]
    assert check(table).facts["leaking"] is None


def test_leaking_groups_of_folders_are_named(table: Path, raw_config: RawConfig, tmp_path: Path) -> None:
    for row in rows():
        group = "h0" if row["image"] == rows()[14]["image"] else row["home"]
        to = tmp_path / "sorted" / row["split"] / group / row["label"].replace("/", "") / (row["sky"] or "day")
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(table / row["image"], to)
    data = {"name": "folders", "root": str(tmp_path / "sorted"), "levels": ["split", "group_id", "label", "bias"]}
    found = audit(validated(raw_config, data | {"size": 24}), False, watch)
    assert found.facts["leaking"] == {"column": "group_id", "groups": ["h0"]}
    assert found.facts["n"] == N


# Tables (class, bias value) of the training rows, with the share of them whose bias is missing, and what suits them.
SITUATIONS = {
    "every cell has rows": ([[900, 100], [100, 900]], 0, "group_dro"),
    "more than two classes and values": ([[300, 40, 60], [50, 300, 40], [40, 60, 300]], 0, "group_dro"),
    "many groups": ((np.full((5, 5), 40) + 200 * np.eye(5, dtype=int)).tolist(), 0, "reweight"),
    "bias missing in part": ([[900, 100], [100, 900]], 0.1, "reweight"),
    "bias mostly missing": ([[900, 100], [100, 900]], 0.8, "lff"),
    "an empty cell": ([[900, 0], [100, 900]], 0, "lntl"),
    "a tiny cell": ([[900, 12], [100, 900]], 0, "lntl"),
    "the bias nearly tells the label": ([[2000, 40], [40, 2000]], 0, "lntl"),
    "the bias does not tell the label": ([[500, 500], [500, 500]], 0, "erm"),
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
    facts = audit(validated(raw_config, data), True, watch).facts
    assert facts["recommendation"]["method"] == expected, facts["recommendation"]
    assert facts["recommendation"]["reasons"]
    phases = yaml.safe_load(facts["recommendation"]["yaml"])["training"]["phases"]
    config = configuration.validate(raw_config(*phases), "test")
    assert config.training.phases[-1].method == expected
    assert facts["trustworthy"]


def test_equal_vectors_are_a_warning_alone(tmp_path: Path, raw_config: RawConfig) -> None:
    k = np.arange(60)
    x = np.stack([k % 3, k % 2], axis=1)  # six vectors, all in every split
    np.savez(tmp_path / "own.npz", x=x, y=k % 3, bias=k // 3 % 2)
    found = audit(validated(raw_config, {"name": "arrays", "path": str(tmp_path / "own.npz")}), True, watch)
    assert found.facts["duplicates"]["of"] == "vectors"
    assert found.facts["duplicates"]["alike"] is None
    assert found.facts["duplicates"]["equal"]["sets"] == 6
    assert titles(found, "problem") == []
    assert "Equal vectors in two splits" in titles(found, "warning")


def test_a_split_of_one_class_leaves_what_is_undefined_out(table: Path, check: Callable[..., Audit]) -> None:
    made = [row for row in rows() if row["split"] != "test" or row["label"] == CLASSES[0]]
    write(table, made)
    found = check(table, look=False)
    told = found.facts["biases"][0]["association"]["test"]
    assert (told["cramers_v"], told["mutual_information"]) == (None, None)
    assert told["undefined"] == "only one class or one bias value occurs"
    assert "Classes without a test row" in titles(found, "warning")
    json.dumps(found.facts, allow_nan=False)


def test_a_test_set_with_the_bias_of_training_is_pointed_out(table: Path, check: Callable[..., Audit]) -> None:
    made = rows()
    for row in made:
        row["sky"] = row["sky"] if row["split"] == "train" else SKIES[CLASSES.index(row["label"])]
    write(table, made)
    found = check(table, look=False)
    assert {"A biased test set", "A biased choice"} <= set(titles(found, "warning"))


def test_neither_the_labels_of_a_probe_nor_the_chance_of_h_open_a_file(
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
    assert found.facts["trustworthy"]
    assert "A biased test set" not in titles(found, "warning")
    assert found.facts["recommendation"]["method"] == "lntl"
    assert "bias_head: pooled" in found.facts["recommendation"]["yaml"]
    train = found.facts["biases"][0]["association"]["train"]
    assert train["bias_only"] > 0.6 > found.facts["biases"][0]["association"]["test"]["bias_only"]
