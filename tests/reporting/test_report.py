"""The report: pages of complete and incomplete run folders are valid, and its three files have the same numbers."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lanes import first_is_fast
from markdown_it import MarkdownIt
from markupsafe import escape
from synthetic_runs import make_run_of_two_biases
from tiny_runs import lntl

from lntl.errors import UserError
from lntl.figures import confusion_matrices
from lntl.reporting.drawings import draw
from lntl.reporting.pages import MAX_RUNS_WITH_FIGURES, write_card, write_report
from lntl.runs.formats import Report

SharedFolder = Callable[[str, Callable[[Path], object]], Path]
VOID_TAGS = {"meta", "link", "br", "img", "input", "hr"}
COMMAND_BY_FILE = {
    "samples.npz": "lntl report",
    "metrics.jsonl": "lntl train",
    "evaluation/test.json": "lntl eval",
    "probe.json": "lntl probe",
    "recoloring.json": "lntl probe",
    "recoloring.npz": "lntl probe",
    "embedding.npz": "lntl probe",
    "result.json": "lntl train",
    "environment.json": None,
    "config.yaml": None,
}


class Page(HTMLParser):
    """The parts of an HTML page that the tests check."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "a tag is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def find_tags(self, *names: str) -> list[tuple[str, dict[str, str]]]:
        return [(tag, values) for tag, values in self.tags if tag in names]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read_report(out: Path) -> tuple[str, Page, dict[str, Any], str]:
    """Return the HTML text, the parsed page, report.json and report.md of a report."""
    html = (out / "index.html").read_text(encoding="utf-8")
    text = (out / "report.json").read_text(encoding="utf-8")
    Report.model_validate_json(text)
    report = json.loads(text, parse_constant=pytest.fail)
    return html, Page(html), report, (out / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def single_report(synthetic_runs: Path, shared_folder: SharedFolder) -> Path:
    """The report of one run."""
    return shared_folder("report-single", lambda folder: write_report([synthetic_runs / "lntl"], folder))


@pytest.fixture(scope="module")
def two_run_report(synthetic_runs: Path, shared_folder: SharedFolder) -> Path:
    """The report of two runs."""
    return shared_folder(
        "report-several", lambda folder: write_report([synthetic_runs / "lntl", synthetic_runs / "plain"], folder)
    )


@pytest.fixture(params=first_is_fast(["single_report", "two_run_report"]))
def report_folder(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def check_page(html: str, page: Page) -> None:
    """Assert that a page is well-formed, loads no other file and contains neither nan nor None."""
    assert len(html.encode()) < 5_000_000
    assert len(page.ids) == len(set(page.ids))
    for _, values in page.tags:
        for name in ("src", "href"):
            link = values.get(name, "#")
            assert link.startswith(("#", "data:")), link
            assert not link.startswith("#") or len(link) == 1 or link[1:] in page.ids, link
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"\bnan\b", re.sub(r"base64,[\w+/=]+", "", html), re.IGNORECASE)
    for _, values in page.find_tags("svg"):
        assert values.get("aria-hidden") == "true" or len(values["aria-label"]) > 30
    levels = [int(tag[1]) for tag, _ in page.find_tags("h1", "h2", "h3", "h4")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert {"main", "nav", "footer"} <= {tag for tag, _ in page.tags}
    assert "None" not in page.text


def test_the_page_is_well_formed(report_folder: Path) -> None:
    html, page, _, _ = read_report(report_folder)
    check_page(html, page)


def test_the_page_has_all_figures_and_no_missing_part(single_report: Path) -> None:
    _, page, report, _ = read_report(single_report)
    labels = [values["aria-label"] for _, values in page.find_tags("svg") if "aria-label" in values]
    assert len(labels) == 10  # two of samples, two of saliency, curves, confusion, groups, probes, strip, embedding
    assert report["runs"][0]["missing"] == {}
    assert "Not measured yet" not in page.text


def test_the_page_starts_with_the_answer(single_report: Path) -> None:
    _, page, report, markdown = read_report(single_report)
    run = report["runs"][0]
    assert run["question"] == "Did the network unlearn the color?"
    assert run["verdict"]["word"] == "Partly"
    for text in (run["question"], run["verdict"]["text"], *(answer["text"] for answer in run["answers"])):
        sentence = " ".join(text.split())
        assert sentence in page.text
        assert sentence in " ".join(markdown.split())
    assert page.text.index(run["question"]) < page.text.index("Training and test images")


@pytest.mark.parametrize("random_colors", [0.0, 1.0])
def test_only_a_run_without_random_colors_is_called_plain(
    synthetic_runs: Path, tmp_path: Path, random_colors: float
) -> None:
    run = Path(shutil.copytree(synthetic_runs / "plain", tmp_path / "run"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert [phase["method"] for phase in config["training"]["phases"]] == ["erm"]
    config["data"]["random_colors"] = random_colors
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_report([run], tmp_path / "out")
    (report,) = read_report(tmp_path / "out")[2]["runs"]
    assert report["is_plain"] == (random_colors == 0)
    assert report["question"].startswith("How much does plain training" if report["is_plain"] else "Did the network")


def test_report_json_has_the_numbers_of_the_files(single_report: Path, synthetic_runs: Path) -> None:
    run = read_report(single_report)[2]["runs"][0]
    contents = {
        name: json.loads((synthetic_runs / "lntl" / name).read_text())
        for name in ("evaluation/test.json", "probe.json", "recoloring.json", "erm/evaluation/test.json")
    }
    test, erm_test = contents["evaluation/test.json"], contents["erm/evaluation/test.json"]
    for row in run["metrics"]:
        metric = test["metrics"][row["name"]]
        assert row["run"] == {name: metric[name] for name in ("value", "low", "high", "undefined")}
        assert row["erm"]["value"] == erm_test["metrics"][row["name"]]["value"]
        assert (row["n"], row["meaning"]) == (metric["n"], metric["meaning"])
    assert [row["name"] for row in run["metrics"]] == list(test["metrics"])
    (h_row,) = [row for row in run["metrics"] if row["name"] == "bias_accuracy"]
    assert h_row["erm"]["undefined"] == "h was not trained"
    for rows in ("by_class", "by_bias"):
        assert [(r["name"], r["n"], r["run"]["value"]) for r in run[rows]] == [
            (r["name"], r["n"], r["value"]) for r in test[rows]
        ]
    assert run["groups"] == {"run": test["groups"], "erm": erm_test["groups"]}
    assert run["confusion"] == {"run": test["confusion"], "erm": erm_test["confusion"]}
    for name in ("probes", "reference", "chance", "leakage", "seeds", "h_accuracy"):
        assert run["probe"][name] == contents["probe.json"][name]
    assert run["recoloring"]["run"]["flip_rate"]["value"] == contents["recoloring.json"]["flip_rate"]["value"]
    numbers = {number["name"]: number for number in run["key_numbers"]}
    assert numbers["unbiased_accuracy"]["run"]["value"] == test["metrics"]["unbiased_accuracy"]["value"]
    assert numbers["leakage"]["run"]["value"] == contents["probe.json"]["leakage"]
    assert numbers["leakage"]["chance"] == max(contents["probe.json"]["chance"].values())


def test_page_and_markdown_have_the_same_numbers(single_report: Path) -> None:
    _, page, report, markdown = read_report(single_report)
    for row in report["runs"][0]["metrics"]:
        for source in ("run", "erm"):
            value = row[source]["value"]
            cell = f"undefined: {row[source]['undefined']}" if value is None else f"{100 * value:.1f}\u202f%"
            assert cell in markdown
            assert " ".join(cell.split()) in page.text or cell in page.text


@pytest.mark.usefixtures("skip_drawing")
def test_several_runs_are_compared(synthetic_runs: Path, tmp_path: Path) -> None:
    write_report([synthetic_runs / "lntl", synthetic_runs / "plain"], tmp_path / "out")
    html, page, report, markdown = read_report(tmp_path / "out")
    check_page(html, page)
    rows = report["comparison"]["rows"]
    assert [row["name"] for row in rows] == ["lntl", "ERM of lntl", "plain"]
    assert [row["verdict"] for row in rows] == ["Partly", None, "Biased"]
    assert report["comparison"]["answer"].startswith("Highest unbiased accuracy: lntl (")
    # Each run has a <details> element, which contains another for environment and configuration.
    assert len([1 for tag, _ in page.find_tags("details")]) == 2 * 3
    assert any(
        "Unbiased accuracy against leakage" in values.get("aria-label", "") for _, values in page.find_tags("svg")
    )
    for row in rows:
        assert f"| {row['name']} |" in markdown


@pytest.mark.usefixtures("skip_figures")
def test_runs_of_different_test_sets_are_not_compared_without_a_word(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "plain", tmp_path / "run"))
    path = run / "evaluation/test.json"
    path.write_text(path.read_text().replace('"n": 2000', '"n": 1999'))
    write_report([synthetic_runs / "lntl", run], tmp_path / "out")
    answer = read_report(tmp_path / "out")[2]["comparison"]["answer"]
    assert answer.startswith(
        "The runs were evaluated on different test sets, so their numbers cannot be compared. Highest"
    )


@pytest.mark.usefixtures("skip_figures")
def test_runs_with_the_same_name_are_shown_by_their_folder(synthetic_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic_runs / "plain", tmp_path / "plain")
    runs = [synthetic_runs / "plain", tmp_path / "plain"]
    write_report(runs, tmp_path / "out")
    assert [row["name"] for row in read_report(tmp_path / "out")[2]["comparison"]["rows"]] == [str(run) for run in runs]


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.parametrize("file", first_is_fast(COMMAND_BY_FILE))
def test_the_page_names_the_command_for_a_missing_file(synthetic_runs: Path, tmp_path: Path, file: str) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    (run / file).unlink()
    out = write_report([run], tmp_path / "out").parent
    html, page, report, _ = read_report(out)
    check_page(html, page)
    command = COMMAND_BY_FILE[file]
    commands = set(report["runs"][0]["missing"].values())
    assert len(commands) <= 1
    for text in commands:
        assert text.startswith(f"{command} {run}")
    if command not in (None, "lntl train"):
        assert command in page.text
    if file in ("config.yaml", "result.json"):
        assert report["runs"][0]["warnings"][0]


@pytest.mark.usefixtures("skip_drawing")
def test_a_run_with_only_a_configuration_has_a_report(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("project: {experiment_name: run}\n")
    html, page, report, markdown = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert report["runs"][0]["verdict"]["word"] == "Open"
    assert "not measured" in page.text
    assert "unfinished" in page.text
    assert "nan" not in markdown.lower()


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.parametrize(
    ("name", "content"),
    first_is_fast(
        [
            ("config.yaml", "training: ["),
            ("config.yaml", "training: {phases: 3}"),
            ("result.json", "{"),
            ("result.json", "[]"),
            ("evaluation/test.json", '{"epoch": 1}'),
            ("probe.json", '{"leakage": NaN}'),
            ("metrics.jsonl", '{"phase": 1, "meth'),
            ("environment.json", "x"),
            ("samples.npz", "no archive"),
            ("embedding.npz", ""),
        ]
    ),
)
def test_a_file_that_cannot_be_read_gives_a_warning(
    synthetic_runs: Path, tmp_path: Path, name: str, content: str
) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    (run / name).write_text(content)
    html, page, report, _ = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    warnings = report["runs"][0]["warnings"]
    assert name.startswith("config") or any(name in warning for warning in warnings)


@pytest.mark.usefixtures("skip_drawing")
def test_a_figure_is_left_out_if_its_arrays_have_wrong_shapes(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    np.savez(run / "embedding.npz", xy=np.zeros((3, 2)), y=np.array([0, 1, 99]), bias=np.zeros(3, dtype=int))
    np.savez(run / "recoloring.npz", x=np.zeros((1, 2, 3, 4, 4), np.uint8), predicted=np.zeros((1, 3), int), y=[0])
    html, page, _, _ = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert "Not measured yet: the features in two dimensions" in page.text


@pytest.mark.usefixtures("skip_drawing")
def test_nan_becomes_null(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    line = {"phase": 1, "method": "erm", "epoch": 1, "total_epoch": 1, "train/task": 1.0, "val/accuracy": float("nan")}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    html, page, report, _ = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert report["runs"][0]["epochs"][0]["val/accuracy"] is None


@pytest.mark.usefixtures("skip_figures")
def test_the_answer_compares_unbiased_accuracy_if_the_test_set_is_biased(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    (run / "recoloring.json").unlink()
    for folder, accuracy, unbiased_accuracy in ((run, 0.8, 0.75), (run / "erm", 0.95, 0.5)):
        path = folder / "evaluation" / "test.json"
        content = json.loads(path.read_text())
        for name, value in (("accuracy", accuracy), ("unbiased_accuracy", unbiased_accuracy)):
            content["metrics"][name] |= {"value": value, "low": value - 0.02, "high": value + 0.02}
        path.write_text(json.dumps(content))
    _, _, report, _ = read_report(write_report([run], tmp_path / "out").parent)
    answer = report["runs"][0]["answers"][0]
    assert answer["short"] == "Yes"
    assert answer["text"].startswith("The test accuracy with equal weight for each group of class and color is 75.0")


@pytest.mark.usefixtures("skip_figures")
@pytest.mark.parametrize(("name", "expected"), [("probe", "the probe"), ("recoloring", "the recoloring")])
def test_a_measurement_of_another_epoch_gives_a_warning(
    synthetic_runs: Path, tmp_path: Path, name: str, expected: str
) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    content = json.loads((run / f"{name}.json").read_text()) | {"epoch": 2}
    (run / f"{name}.json").write_text(json.dumps(content))
    warnings = read_report(write_report([run], tmp_path / "out").parent)[2]["runs"][0]["warnings"]
    assert any(
        f"{expected} was made at epoch 2, but the best checkpoint is from epoch 7" in warning for warning in warnings
    )


@pytest.mark.usefixtures("skip_figures")
@pytest.mark.parametrize("std", [None, 0.0], ids=["null", "0 as in earlier versions"])
def test_probes_of_one_seed_have_no_interval(synthetic_runs: Path, tmp_path: Path, std: float | None) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    probe = json.loads((run / "probe.json").read_text()) | {"seeds": [0]}
    for row in (*probe["probes"], *probe["reference"]["erm"], *probe["reference"]["pixels"]):
        row |= {"std": std, "values": [row["mean"]]}
    (run / "probe.json").write_text(json.dumps(probe))
    html, page, report, markdown = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    leakage = next(n for n in report["runs"][0]["key_numbers"] if n["name"] == "leakage")
    assert (leakage["run"]["low"], leakage["run"]["high"]) == (None, None)
    for text in (markdown, write_card(run).read_text(encoding="utf-8")):
        assert ("| not measured |" in text) == (std is None)
        assert "None" not in text


SPECIAL_NAME = (
    "<b>`a`</b> *b* _c_ | [d](e) &amp; $x$ #0072b2 url(#f) font-family: g;"  # tests add several kinds of spaces
)


def get_rendered_text(markdown: str) -> str:
    """Return the visible text of rendered Markdown; assert that it has only the markup of the report."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    assert "html_block" not in {token.type for token in tokens}
    tokens_and_breaks = [
        child for token in tokens if token.type == "inline" for child in [*(token.children or []), None]
    ]
    allowed_types = {"text", "text_special", "strong_open", "strong_close", "code_inline", "softbreak"}
    assert {token.type for token in tokens_and_breaks if token} <= allowed_types
    return " ".join("".join(" " if token is None else token.content for token in tokens_and_breaks).split())


@pytest.mark.usefixtures("skip_drawing")
def test_names_from_the_run_are_escaped(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / SPECIAL_NAME))
    for name in ("evaluation/test.json", "probe.json"):
        path = run / name
        content = json.loads(path.read_text())
        text = json.dumps(content).replace('"crimson"', json.dumps(f"crimson \t{SPECIAL_NAME}\n"))
        path.write_text(
            text.replace('"nearest mean color"', json.dumps(f"hue {SPECIAL_NAME}\n")).replace(
                '"7"', json.dumps(SPECIAL_NAME)
            )
        )
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: colored_mnist", "name: table"))
    html, page, _, markdown = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert len(page.find_tags("script")) == 1
    card = write_card(run).read_text(encoding="utf-8")
    for text in (get_rendered_text(markdown), get_rendered_text(card), page.text):
        assert text.count(f"crimson {SPECIAL_NAME}") >= 1
        assert f"hue {SPECIAL_NAME}" in text
    for table in re.findall(r"(?:^\|.*\n)+", markdown + card, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    code = card.split("```python\n")[1].split("\n```")[0]
    (call,) = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and "load" in ast.unparse(node.func)
    ]
    assert ast.literal_eval(call.args[0]) == str(run)


def test_names_in_figures_are_escaped() -> None:
    svg = draw(lambda: confusion_matrices({"run": [[1, 0], [0, 1]]}, [SPECIAL_NAME[:47], "b"]), "id", SPECIAL_NAME).svg
    assert svg.count(f">{escape(SPECIAL_NAME[:47])}<") == 2


@pytest.mark.parametrize("name", [r"a\d", r"x\1y", r"\g<name>", "$1k_to_$2k"])
def test_a_name_may_contain_regex_and_math_characters(name: str) -> None:
    drawing = draw(lambda: confusion_matrices({"run": [[1, 0], [0, 1]]}, [name, "b"]), "id", f"Taken for {name}.")
    assert f'aria-label="{escape(f"Taken for {name}.")}"' in drawing.svg
    assert drawing.svg.count(f">{escape(name)}<") == 2


@pytest.mark.full
def test_the_size_of_a_page_of_many_runs_is_limited(
    synthetic_runs: Path, single_report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lntl.reporting.pages.MAX_RUNS_WITH_FIGURES", 1)
    out = write_report([synthetic_runs / "plain", synthetic_runs / "lntl"], tmp_path / "out").parent
    html, page, _, _ = read_report(out)
    check_page(html, page)
    assert f"lntl report {synthetic_runs / 'lntl'}" in page.text
    page_size = len((single_report / "index.html").read_bytes())
    assert MAX_RUNS_WITH_FIGURES * page_size < 5_000_000


def test_a_folder_that_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder.*lntl train"):
        write_report([tmp_path], tmp_path / "out")


@pytest.mark.usefixtures("skip_figures")
def test_the_command_writes_into_the_run_folder(
    synthetic_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    assert lntl("report", str(run)) == 0
    out = capsys.readouterr().out
    for name in ("index.html", "report.json", "report.md"):
        assert str(run / "report" / name) in out
        assert (run / "report" / name).is_file()
    other_run = shutil.copytree(synthetic_runs / "plain", tmp_path / "other")
    assert lntl("report", str(run), str(other_run), "--out", str(tmp_path / "page")) == 0
    assert str(other_run) in capsys.readouterr().err  # the log names the run of the following lines


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.full
def test_the_command_accepts_a_configuration_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("train", "tiny.yaml", "--epochs", "1") == 0
    assert "lntl report results/tiny makes a page" in capsys.readouterr().out
    assert lntl("report", "tiny.yaml") == 0
    assert (folder / "results/tiny/report/index.html").is_file()
    assert (folder / "results/tiny/samples.npz").is_file()
    assert lntl("report", "results/tiny", "results/tiny", "--out", "page") == 0
    assert read_report(folder / "page")[2]["comparison"] is None  # the same run is given twice


@pytest.mark.parametrize("target", ["results/nothing", "."])
def test_the_command_without_a_run_folder_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    assert lntl("report", target) == 2
    assert "run folder" in capsys.readouterr().err


# --- metrics over groups, many names, no bias ---


def change_evaluation(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = run / "evaluation/test.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.usefixtures("skip_figures")
def test_metrics_over_groups_show_the_number_of_groups(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))
    cells = {"cells": 99, "all_cells": 100}
    change_evaluation(run, lambda content: content["metrics"]["unbiased_accuracy"].update(cells))
    worst_group = cells | {"lowest": "digit=7, color=3, 12 images"}
    change_evaluation(run, lambda content: content["metrics"]["worst_group_accuracy"].update(worst_group))
    _, page, report, markdown = read_report(write_report([run], tmp_path / "out").parent)
    text = "99 of 100 groups have images, lowest: digit=7, color=3, 12 images"
    assert report["runs"][0]["key_numbers"][3]["meaning"].endswith(text)
    card = write_card(run).read_text(encoding="utf-8")
    for content in (page.text, markdown, card):
        assert text in content
        assert content.count("99 of 100 groups have images") >= 2


@pytest.mark.usefixtures("skip_drawing")
def test_long_tables_show_their_first_rows_and_the_number_of_further_rows(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "lntl", tmp_path / "run"))

    def add_classes_and_biases(content: dict[str, Any]) -> None:
        row = content["by_class"][0]
        bias = {key: content[key] for key in ("bias_value_names", "metrics", "by_bias", "groups")}
        content["by_class"] = [row | {"name": f"class{k}"} for k in range(1000)]
        content["class_names"] = [f"class{k}" for k in range(1000)]
        content["per_bias"] = {f"bias{k}": bias for k in range(40)}

    change_evaluation(run, add_classes_and_biases)
    html, page, report, markdown = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    card = write_card(run).read_text(encoding="utf-8")
    assert len(report["runs"][0]["by_class"]) == 1000
    for content in (page.text, markdown, card):
        assert "class19" in content
        assert "class20" not in content
        assert "and 980 more" in content
        assert "and 20 more" in content
        assert "bias20" not in content


@pytest.mark.usefixtures("skip_drawing")
def test_the_report_of_a_run_without_bias_labels_suggests_no_probe(synthetic_runs: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(synthetic_runs / "plain", tmp_path / "run"))
    for name in ("probe.json", "embedding.npz", "recoloring.json", "recoloring.npz"):
        (run / name).unlink(missing_ok=True)

    def remove_bias(content: dict[str, Any]) -> None:
        content["bias_value_names"], content["groups"] = ["unknown"], {"accuracy": [], "count": []}
        content["by_bias"] = [
            content["by_bias"][0] | {"name": "unknown", "n": 0, "value": None, "low": None, "high": None}
        ]

    change_evaluation(run, remove_bias)
    html, page, report, markdown = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert "lntl probe" not in markdown
    assert not {"probe", "embedding", "recoloring", "strip"} & report["runs"][0]["missing"].keys()
    assert "Not available: no test image has a bias label." in page.text
    assert "Only the color changes" not in page.text
    assert "no test image has a bias label" in write_card(run).read_text(encoding="utf-8")


# --- several biases ---


@pytest.fixture(scope="module")
def run_of_two_biases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two biases, which have twelve joint values."""
    return make_run_of_two_biases(tmp_path_factory.mktemp("biased") / "pets")


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.full
def test_each_bias_has_its_own_figure_and_numbers(run_of_two_biases: Path, tmp_path: Path) -> None:
    html, page, report, markdown = read_report(write_report([run_of_two_biases], tmp_path / "out").parent)
    check_page(html, page)
    texture, stroke = report["runs"][0]["per_bias"]
    evaluation = json.loads((run_of_two_biases / "evaluation/test.json").read_text())["per_bias"]
    erm_evaluation = json.loads((run_of_two_biases / "erm/evaluation/test.json").read_text())["per_bias"]
    for bias, leakage, chance in ((texture, 0.24, 0.113), (stroke, 0.93, 0.51)):
        assert bias["leakage"]["run"]["value"] == pytest.approx(leakage)
        assert (bias["chance"], bias["leakage"]["pixels"]["value"]) == (chance, 0.99)
        for source, content in (("run", evaluation), ("erm", erm_evaluation)):
            metrics = content[bias["name"]]["metrics"]
            assert bias["metrics"]["worst_group_accuracy"][source]["value"] == metrics["worst_group_accuracy"]["value"]
        assert f"Accuracy in % by class and {bias['name']} alone; brackets show the number of test images" in page.text
        assert re.search(rf"^\| {bias['name']} \| {100 * leakage:.1f}", markdown, re.MULTILINE)
    assert "Each bias alone" in page.text
    assert "Did the network unlearn the combination of texture and stroke?" in page.text
    assert len(stroke["groups"]["run"]["count"][0]) == 2
    assert report["runs"][0]["missing"].keys() == {"samples", "saliency"}
    assert "Not available for these data: images cannot be given another" in page.text


@pytest.mark.usefixtures("skip_drawing")
@pytest.mark.parametrize("missing_file", ["probe.json", "evaluation/test.json", "erm"])
def test_a_report_of_several_biases_is_complete_if_a_file_is_missing(
    run_of_two_biases: Path, tmp_path: Path, missing_file: str
) -> None:
    run = tmp_path / "pets"
    shutil.copytree(run_of_two_biases, run)
    (shutil.rmtree if missing_file == "erm" else Path.unlink)(run / missing_file)
    html, page, report, _ = read_report(write_report([run], tmp_path / "out").parent)
    check_page(html, page)
    assert [bias["name"] for bias in report["runs"][0]["per_bias"]] == ["texture", "stroke"]
    assert ("by class and stroke alone" in page.text) == (missing_file != "evaluation/test.json")


@pytest.mark.usefixtures("skip_figures")
def test_a_report_of_one_bias_has_no_table_of_biases(synthetic_runs: Path, tmp_path: Path) -> None:
    _, page, report, markdown = read_report(write_report([synthetic_runs / "lntl"], tmp_path / "out").parent)
    assert report["runs"][0]["per_bias"] == []
    assert "bias alone" not in page.text + markdown
