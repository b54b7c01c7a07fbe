"""The comparison of methods: its numbers equal those of plain loops; its files and its figure are complete."""

import csv
import io
import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import ValidationError
from rich.console import Console
from tiny_runs import ROOT, lntl, write_config

from lntl import paper
from lntl.benchmark import comparison as tables
from lntl.benchmark import plan as plans
from lntl.benchmark.comparison import Comparison, comparison_figure
from lntl.benchmark.comparison import compare as compare_lines
from lntl.benchmark.results import BenchmarkRun, ResultLine
from lntl.errors import UserError
from lntl.evaluation.metrics import METRICS, lower_is_better

COLOR_VAR = "data.color_var"


def make_line(
    name: str, seed: int, accuracy: float | None, value: Any = 0.02, key: str = COLOR_VAR, **fields: Any
) -> dict[str, Any]:
    overrides = {} if value is None else {key: value}
    head = {"name": name, "config_hash": f"{name}{value}", "overrides": overrides, "seed": seed}
    return head | {"metrics": {"accuracy": accuracy, "bias_accuracy": 0.9}} | fields


def make_failure(name: str, seed: int, value: float = 0.02) -> dict[str, Any]:
    return {k: v for k, v in make_line(name, seed, 0, value).items() if k != "metrics"} | {
        "error": "out of memory; try again"
    }


def compare(lines: list[dict[str, Any]], *arguments: Any, **settings: Any) -> Comparison:
    return compare_lines([ResultLine.model_validate(line) for line in lines], *arguments, **settings)


LINES = [
    make_line("er_m", 10, 0.40),
    make_line("er_m", 11, 0.44),
    make_line("er_m", 12, 0.39),
    make_line("er_m", 10, 0.85, 0.05),
    make_line("er_m", 11, 0.83, 0.05),
    make_line("er_m", 12, 0.81, 0.05),
    make_line("best", 10, 0.95),
    make_line("best", 11, 0.97),
    make_failure("best", 12),
    make_failure("best", 10, 0.05),
]
TABLE = compare(LINES)


def parse_rows(text: str) -> dict[str, list[str]]:
    """Return the rows of a Markdown table by their first cell, without this cell."""
    cells = [[c.strip() for c in x.strip("| ").split(" | ")] for x in text.splitlines() if x.startswith("|")]
    return {name: values for name, *values in cells}


def compute_mean_and_std(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def test_means_and_sample_deviations_equal_a_loop() -> None:
    er_m_row, best_row = TABLE.our_rows
    for row, column, values in (
        (er_m_row, 0.02, [0.40, 0.44, 0.39]),
        (er_m_row, 0.05, [0.85, 0.83, 0.81]),
        (best_row, 0.02, [0.95, 0.97]),
    ):
        mean, std = compute_mean_and_std(values)
        assert row.scores[column].mean == pytest.approx(mean)
        assert row.scores[column].std == pytest.approx(std)
    assert best_row.scores[0.02].failed_seeds == (12,)
    assert best_row.scores[0.05].values == ()


def test_one_seed_has_no_deviation() -> None:
    (row,) = compare([make_line("a", 1, 0.5)]).our_rows
    assert row.scores[0.02].std is None
    assert tables.score_text(row.scores[0.02], usual_n=1) == ".5000"


def test_the_markdown_table_has_scores_notes_and_failures() -> None:
    text = tables.to_markdown(TABLE)
    table = parse_rows(text)
    mean, std = compute_mean_and_std([0.40, 0.44, 0.39])
    assert list(table)[:4] == ["accuracy by color variance σ²", "---", r"er\_m", "best"]
    assert table[r"er\_m"] == [f"{mean:.4f} ± {std:.4f}".replace("0.", "."), ".8300 ± .0200"]
    assert table["best"] == ["**.9600 ± .0141 (n=2)**", "failed"]
    assert "n = 3 unless the cell shows another n" in text
    assert "Failed: best, data.color\\_var=0.02, seed 12: out of memory." in text
    assert table["accuracy by color variance σ²"] == ["0.02", "0.05"]


def test_every_published_row_is_in_the_table() -> None:
    table, text = parse_rows(tables.to_markdown(TABLE)), tables.to_markdown(TABLE)
    for published_row in paper.PUBLISHED_RESULTS:
        cells = [cell.strip("*") for cell in table[published_row.name]]
        assert cells == [f"{published_row.scores[c]:.4f}".removeprefix("0") for c in (0.02, 0.05)]
        assert published_row.source in text
        assert published_row.confirmed != published_row.name.endswith("from memory, unconfirmed")
    assert table["CSAD, from memory, unconfirmed"][1] == "**.9850**"  # the highest accuracy of the column is bold


# From PAPER.md: baseline, BlindEye, gray and LNTL of the authors' README, a student report, and unconfirmed numbers.
@pytest.mark.parametrize(
    ("name", "accuracies"),
    [
        ("paper: baseline", ".4055 .4813 .5996 .6626 .7333 .7973 .8450"),
        ("paper: BlindEye", ".6741 .7123 .7883 .8203 .8638 .8927 .9159"),
        ("paper: gray", ".8374 .8751 .8996 .9166 .9325 .9472 .9596"),
        ("paper: LNTL", ".8185 .8854 .9137 .9306 .9406 .9555 .9618"),
        ("LNTL, ramped reversal", ".8393 .8956 .9197 .9324 .9388 .9469 .9512"),
        ("CSAD, from memory, unconfirmed", ".943 .961 .970 .980 .981 .982 .985"),
        ("MI back-propagation, from memory, unconfirmed", ".864 .925 .959 .973 .975 .980 .982"),
    ],
)
def test_the_published_accuracies_are_those_of_paper_md(name: str, accuracies: str) -> None:
    (row,) = (row for row in paper.PUBLISHED_RESULTS if row.name == name)
    columns = [0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05]
    assert row.scores == dict(zip(columns, map(float, accuracies.split()), strict=True))


def test_the_csv_has_all_digits() -> None:
    lines = list(csv.DictReader(io.StringIO(tables.to_csv(TABLE))))
    our_lines = [x for x in lines if x["source"] == "ours"]
    assert [(x["method"], x[COLOR_VAR], x["n"], x["failed_seeds"]) for x in our_lines] == [
        ("er_m", "0.02", "3", ""),
        ("er_m", "0.05", "3", ""),
        ("best", "0.02", "2", "12"),
        ("best", "0.05", "0", "10"),
    ]
    mean, std = compute_mean_and_std([0.40, 0.44, 0.39])
    assert (float(our_lines[0]["mean"]), float(our_lines[0]["std"])) == (pytest.approx(mean), pytest.approx(std))
    assert (our_lines[3]["mean"], our_lines[3]["std"]) == ("", "")
    assert len(lines) == 4 + 2 * len(paper.PUBLISHED_RESULTS)


def test_names_are_one_line_in_every_table() -> None:
    table = compare([make_line("a\nb\t|c", 1, 0.5), make_line("=1+1", 1, 0.6)])
    assert "| a b \\|c |" in tables.to_markdown(table)
    for escape, name in ((False, "=1+1"), (True, "'=1+1")):
        cells = [
            x["method"] for x in csv.DictReader(io.StringIO(tables.to_csv(table, escape))) if x["source"] == "ours"
        ]
        assert cells[1] == name
        assert not re.search(r"[\n\t]", cells[0])


def test_the_latex_table_is_complete_and_escaped() -> None:
    text = tables.to_latex(TABLE)
    assert r" & \multicolumn{2}{c}{accuracy by color variance $\sigma^2$} \\" in text
    assert r"er\_m & .4100 $\pm$ .0265 & .8300 $\pm$ .0200 \\" in text
    assert r"best & \textbf{.9600 $\pm$ .0141 (n=2)} & failed \\" in text
    assert text.count(r"\midrule") == 2
    body_lines = [x for x in text.splitlines() if x.endswith(r"\\") and "multicolumn" not in x]
    assert {x.count(" & ") for x in body_lines} == {2}
    assert not re.search(r"(?<!\\)_", "\n".join(body_lines))


def test_the_terminal_table_has_scores_and_failures() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(tables.to_table(TABLE))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"er_m +\.4100 ± \.0265 +\.8300 ± \.0200", text)
    assert "Failed: best" in text


def test_a_plan_sets_the_order_the_labels_and_the_counted_runs() -> None:
    plan_rows = [("best", "Best (ours)", 10), ("best", "Best (ours)", 11), ("er_m", "ERM", 10), ("new", "new", 10)]
    planned_runs = [
        BenchmarkRun(name, label, {COLOR_VAR: 0.02}, f"{name}0.02", seed) for name, label, seed in plan_rows
    ]
    table = compare(LINES, planned_runs)
    assert [row.name for row in table.our_rows] == ["Best (ours)", "ERM", "new"]
    assert table.columns == [0.02]
    assert table.our_rows[1].scores[0.02].values == (0.40,)
    assert parse_rows(tables.to_markdown(table))["new"] == []  # not run yet
    assert any(note.startswith("1 of 4 runs are not made yet") for note in table.notes)
    assert any("7 lines belong to other configurations or seeds and are not used" in note for note in table.notes)


def test_scores_on_val_are_not_compared_with_published_results() -> None:
    table = compare([make_line("a", 10, 0.5, value, split="val") for value in (0.02, 0.05)])
    assert comparison_figure(table).axes[0].get_ylabel() == "accuracy on the validation set"
    assert table.published_rows == []
    assert table.notes[0].startswith("Validation set, last checkpoint")


def test_scores_on_val_and_on_test_are_not_mixed() -> None:
    with pytest.raises(UserError, match="some of these runs were evaluated on test, others on val"):
        compare([make_line("a", 10, 0.5, split="val"), make_line("a", 11, 0.5, split="test")])


def test_without_a_plan_only_the_last_configuration_of_a_cell_counts() -> None:
    lines = [make_line("a", 1, 0.1, config_hash="old"), make_line("a", 1, 0.5), make_line("a", 2, 0.7)]
    table = compare(lines)
    assert table.our_rows[0].scores[0.02].values == (0.5, 0.7)
    assert any(note.startswith("1 lines belong to other") for note in table.notes)


def test_columns_can_be_any_key_and_other_keys_give_rows() -> None:
    lines = [
        make_line("a", 1, 0.5) | {"overrides": {"training.ema": ema, "mu": mu}, "config_hash": f"{ema}{mu}"}
        for ema in (0.9, None)
        for mu in (10, 2)
    ]
    table = compare(lines, by="mu")
    assert table.columns == [2, 10]
    assert [row.name for row in table.our_rows] == ["a, ema=0.9", "a, ema=None"]
    assert table.published_rows == []
    with pytest.raises(UserError, match=r"training\.ema, mu: choose the columns with --by"):
        compare(lines)
    with pytest.raises(UserError, match="--by nu: no run sets it; did you mean 'mu'"):
        compare(lines, by="nu")


def test_the_columns_are_the_only_key_that_all_runs_set() -> None:
    lines = [
        make_line("a", 1, 0.5) | {"overrides": {"rho": rho, key: 1}, "config_hash": key}
        for rho, key in ((0.9, "mu"), (0.8, "lam"))
    ]
    table = compare(lines)
    assert (table.by, table.columns) == ("rho", [0.8, 0.9])


def test_bias_accuracy_has_no_published_rows_and_no_best_value() -> None:
    table = compare(LINES, metric="bias_accuracy")
    assert table.published_rows == []
    assert "**" not in tables.to_markdown(table)
    with pytest.raises(UserError, match="--metric acuracy: er_m has no such metric; did you mean 'accuracy'"):
        compare(LINES, metric="acuracy")


@pytest.mark.parametrize("metric", [name for name in METRICS if lower_is_better(name)])
def test_the_lowest_error_or_gap_is_the_best(metric: str) -> None:
    lines = [
        make_line(name, 1, None, None) | {"metrics": {metric: gap}} for name, gap in (("wide", 0.4), ("narrow", 0.1))
    ]
    table = compare(lines, metric=metric)
    assert parse_rows(tables.to_markdown(table))["narrow"] == ["**.1000**"]
    assert tables.to_markdown(table).count("**") == 2
    assert [text.get_text() for text in comparison_figure(table).axes[0].get_yticklabels()] == ["wide", "narrow"]


def test_an_undefined_value_is_left_out() -> None:
    table = compare([make_line("a", 1, None), make_line("a", 2, 0.5), make_line("b", 1, None)])
    assert [row.scores[0.02].values for row in table.our_rows] == [(0.5,), ()]
    markdown = tables.to_markdown(table)
    assert "| b | undefined |" in markdown
    assert "accuracy is undefined for 2 of 3 runs, which the means leave out." in markdown


def test_a_note_counts_lines_that_another_line_of_the_same_run_follows() -> None:
    table = compare([make_line("a", 1, 0.4), make_line("a", 1, 0.5)])
    assert table.our_rows[0].scores[0.02].values == (0.5,)
    assert "1 lines are followed by another line of the same run, which counts." in table.notes


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")])
def test_values_that_no_axis_can_show_are_texts(value: Any) -> None:
    table = compare([make_line("a", 1, 0.4, value), make_line("a", 1, 0.5, 2)])
    assert [tick.get_text() for tick in comparison_figure(table).axes[0].get_xticklabels()] == [
        str(value) if value == 10**400 else f"{value:.0f}",
        "2",
    ]


def test_scores_out_of_range_are_refused() -> None:
    """Their mean would not be a finite number."""
    with pytest.raises(ValidationError, match="less than or equal to 1000000"):
        ResultLine.model_validate(make_line("a", 1, 1e308))


def test_a_comparison_without_lines_is_refused() -> None:
    with pytest.raises(UserError, match="no runs to compare yet"):
        compare([])


CASES: dict[str, Comparison] = {
    "paper": TABLE,
    "no grid": compare([make_line("a", 1, 0.5, None), make_line("a", 2, 0.6, None), make_line("b", 1, 0.7, None)]),
    "words": compare([make_line("a", 1, 0.5, value, "model.name") for value in ("convnet", "lenet")]),
    "lists": compare([make_line("a", 1, 0.5, value, "x") for value in ([1, 2], [3])]),
    "many": compare(
        [make_line(f"method_{i}", s, 0.9 + s / 100, v) for i in range(16) for s in (1, 2) for v in (0.02, 0.05)]
    ),
    "money": compare([make_line("$1k_to_$2k", 1, 0.5, value) for value in (0.02, 0.05)]),
    "money, no grid": compare([make_line("$1k_to_$2k", 1, 0.5, None)]),
    "all failed": compare([make_failure("a", 1), make_failure("a", 1, 0.05)]),
}


@pytest.mark.parametrize("table", CASES.values(), ids=CASES)
def test_every_table_can_be_drawn_and_written(table: Comparison) -> None:
    figure = comparison_figure(table)
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure).draw()
    for text in (tables.to_markdown(table), tables.to_latex(table), tables.to_csv(table)):
        assert text.endswith("\n")


def test_the_figure_shows_means_bands_and_confirmed_published_accuracies() -> None:
    figure = comparison_figure(TABLE)
    (axes,) = figure.axes
    er_m_line, best_line, *published_marks = axes.lines
    assert list(er_m_line.get_ydata()) == [pytest.approx(0.41), pytest.approx(0.83)]
    assert list(best_line.get_xdata()) == [0.02]
    assert {str(mark.get_label()) for mark in published_marks} == {
        p.name for p in paper.PUBLISHED_RESULTS if p.confirmed
    }
    assert len(axes.collections) == 2
    corners = axes.collections[0].get_paths()[0].vertices
    mean, std = compute_mean_and_std([0.40, 0.44, 0.39])
    assert min(corners[:, 1]) == pytest.approx(mean - std)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == ["best", "er_m"]  # ordered by their last points
    assert set(names[2:]) == {p.name for p in paper.PUBLISHED_RESULTS if p.confirmed}


def test_the_names_of_many_methods_fit_into_the_figure() -> None:
    figure = comparison_figure(CASES["many"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    boxes = sorted((text.get_window_extent(canvas.get_renderer()) for text in legend.get_texts()), key=lambda b: b.y0)
    assert len(boxes) == 16 + 5
    # A box is higher than its letters, so boxes may overlap by 30%.
    assert all(lower_box.y1 - 0.3 * lower_box.height < upper_box.y0 for lower_box, upper_box in pairwise(boxes))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert legend.get_window_extent().x0 >= figure.axes[0].get_window_extent().x1


@pytest.fixture
def results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with LINES as results.jsonl, as the working directory."""
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = ["figure.png", "figure.svg", "table.csv", "table.md", "table.tex"]


def test_compare_writes_five_files_beside_the_results(results_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("compare", "results.jsonl") == 0
    assert sorted(p.name for p in results_folder.iterdir() if p.name != "results.jsonl") == NAMES
    assert Path("table.md").read_text() == tables.to_markdown(TABLE)
    assert Path("table.csv").read_text() == tables.to_csv(TABLE)
    assert Path("table.tex").read_text() == tables.to_latex(TABLE)
    assert ".4100 ± .0265" in capsys.readouterr().out


def test_the_same_results_give_the_same_files(results_folder: Path) -> None:
    for folder in ("one", "two"):
        assert lntl("compare", "results.jsonl", "--out", folder) == 0
    assert [(Path("one") / name).read_bytes() for name in NAMES] == [(Path("two") / n).read_bytes() for n in NAMES]


def test_the_plan_beside_the_results_decides_which_lines_count(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(results_folder)
    row = "{name: er_m, label: ERM, config: tiny.yaml, grid: {data.color_var: [0.02]}}"
    Path("plan.yaml").write_text(f"name: try\nseeds: [10, 11]\nruns: [{row}]\n")
    jobs = plans.planned_runs(plans.read(Path("plan.yaml")), Path("plan.yaml"))
    lines = [make_line("er_m", job.seed, 0.5 + job.seed / 100, config_hash=job.config_hash) for job in jobs]
    Path("results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in (*LINES, *lines)))
    assert lntl("compare", "results.jsonl") == 0
    assert parse_rows(Path("table.md").read_text())["ERM"] == [".6050 ± .0071"]
    assert "10 lines belong to other" in " ".join(capsys.readouterr().out.split())


def test_the_plan_names_the_metric_of_its_table_and_published_results(results_folder: Path) -> None:
    write_config(results_folder)
    row = "{name: er_m, label: ERM, config: tiny.yaml, grid: {data.max_images: [100, 150]}}"
    others = (
        "[{name: theirs, source: a paper, scores: {100: 0.61, 75: 0.7}},"
        " {name: recalled, source: memory, confirmed: false, scores: {150: 0.9}},"
        " {name: elsewhere, source: x, scores: {a: 0}}]"
    )
    head = f"name: try\nseeds: [10]\nruns: [{row}]\nmetric: worst_group_accuracy\n"
    Path("plan.yaml").write_text(f"{head}published: {others}\n")
    jobs = plans.planned_runs(plans.read(Path("plan.yaml")), Path("plan.yaml"))
    lines = [make_line("er_m", job.seed, 0.5, config_hash=job.config_hash) for job in jobs]
    for line in lines:
        line["metrics"]["worst_group_accuracy"] = 0.25
    Path("results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert lntl("compare", "results.jsonl") == 0
    table = parse_rows(Path("table.md").read_text())
    assert table["worst group accuracy by data.max\\_images"] == ["100", "150"]
    assert [table[name] for name in ("ERM", "theirs", "recalled")] == [
        [".2500", ".2500"],
        ["**.6100**"],
        ["", "**.9000**"],
    ]
    assert "elsewhere" not in table
    assert "not measured here: a paper (theirs); memory (recalled)" in Path("table.md").read_text()
    assert lntl("compare", "results.jsonl", "--metric", "accuracy") == 0  # published results are of the plan's metric
    assert list(parse_rows(Path("table.md").read_text())) == ["accuracy by data.max\\_images", "---", "ERM"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("metric: acuracy", "metric: unknown value 'acuracy'; did you mean 'accuracy'?"),
        ("published: [{name: a, scores: {0.5: 0.5}}]", "published.0.source"),
        ("published: [{name: a, source: b, scores: {}}]", "published.0.scores"),
        ("published: [{name: a, source: b, scores: {0.5: high}}]", "published.0.scores"),
        ("published: [{name: a, source: b, scores: {0.5: 1.0e+9}}]", "published.0.scores.0.5: 1000000000.0 should be"),
        (
            "published: [{name: a, source: b, scores: {1: 1}}, {name: a, source: c, scores: {1: 0}}]",
            "published has the name 'a' twice",
        ),
    ],
)
def test_a_wrong_metric_or_published_result_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(f"name: try\nseeds: [1]\nruns: [{{name: a, config: tiny.yaml}}]\n{line}\n")
    with pytest.raises(UserError) as caught:
        plans.read(path)
    assert sentence in str(caught.value)


def test_results_of_another_plan_have_separate_tables(results_folder: Path) -> None:
    assert lntl("compare", "results.jsonl") == 0
    table, tuned_results = Path("table.md").read_text(), results_folder / "tuned.jsonl"
    write_config(results_folder)
    row = "{name: er_m, label: ERM, config: tiny.yaml, grid: {data.color_var: [0.02]}}"
    Path("plan.yaml").write_text(f"name: try\nseeds: [1]\nruns: [{row.replace('ERM', 'other')}]\n")
    Path("tune.yaml").write_text(f"name: try\nresults: tuned.jsonl\nseeds: [10]\nruns: [{row}]\n")
    (job,) = plans.planned_runs(plans.read(Path("tune.yaml")), Path("tune.yaml"))
    tuned_results.write_text(json.dumps(make_line("er_m", job.seed, 0.5, config_hash=job.config_hash)) + "\n")
    assert lntl("compare", "tuned.jsonl") == 0
    assert parse_rows(Path("tuned_table.md").read_text())["ERM"] == [".5000"]
    assert Path("tuned_figure.png").stat().st_size > 0
    assert Path("table.md").read_text() == table


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.jsonl"], "missing.jsonl: there is no file of results"),
        (["results.jsonl", "--plan", "missing.yaml"], "missing.yaml: cannot read the plan"),
        (["results.jsonl", "--out", "results.jsonl"], "results.jsonl: cannot make the folder"),
        (["results.jsonl", "--metric", "x"], "--metric x"),
    ],
)
def test_bad_arguments_give_one_sentence(
    results_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert lntl("compare", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"Error: {expected}")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({COLOR_VAR: 0.02}, "lntl"),
        ({COLOR_VAR: 0.02, "training.optimizer_fg.lr": 0.004}, "lntl, lr=0.004"),
        ({COLOR_VAR: 0.02, "a.fg.lr": 1, "b.fg.lr": 2, "mu": 3}, "lntl, a.fg.lr=1, b.fg.lr=2, mu=3"),
    ],
)
def test_the_name_of_a_row_has_the_overrides_that_distinguish_it(overrides: dict[str, Any], name: str) -> None:
    table = compare([make_line("lntl", 10, 0.5) | {"overrides": overrides}], by=COLOR_VAR)
    assert [row.name for row in table.our_rows] == [name]


@pytest.mark.full
@pytest.mark.parametrize(
    "results",
    [path for path in sorted((ROOT / "benchmarks").glob("*/*.jsonl")) if path.name != "trials.jsonl"],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_the_tables_of_the_repository_follow_from_its_results(results: Path, tmp_path: Path) -> None:
    assert lntl("compare", str(results), "--out", str(tmp_path)) == 0
    (table_path,) = tmp_path.glob("*table.md")
    assert (results.parent / table_path.name).read_text(encoding="utf-8") == table_path.read_text(encoding="utf-8")
