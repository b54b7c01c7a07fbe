"""Tables for the terminal have each number in its cell, and words instead of undefined numbers."""

import re
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

from lntl.reporting import tables
from lntl.runs.formats import CheckpointScores, Metric, Result, Row


def render(table: Table) -> str:
    screen = StringIO()
    Console(file=screen, width=120).print(table)
    return screen.getvalue()


def make_estimate(value: float | None, n: int = 50) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"value": value, "low": low, "high": high, "n": n}


def test_the_metric_table_shows_values_intervals_and_undefined_metrics() -> None:
    undefined_metric = Metric(**make_estimate(None, 0), undefined="no [label]")
    unbiased_metric = Metric(**make_estimate(0.25), cells=3, all_cells=4)
    rows = {
        "accuracy": Metric(**make_estimate(0.5)),
        "bias_accuracy": undefined_metric,
        "unbiased_accuracy": unbiased_metric,
    }
    output = render(tables.metric_table("a [title]", rows))
    assert "a [title]" in output
    assert re.search(r"accuracy +0\.5000 +0\.4000 to 0\.6000 +50\b", output)
    assert re.search(r"bias accuracy +undefined +no \[label\] +0\b", output)
    assert re.search(r"unbiased accuracy +0\.2500 +0\.1500 to 0\.3500 +50 in 3 of 4 groups", output)


def test_the_accuracy_table_marks_few_images() -> None:
    rows = [Row(name="0", **make_estimate(0.5)), Row(name="[1]", small=True, **make_estimate(0.7, 3))]
    output = render(tables.accuracy_table("by class", rows))
    assert re.search(r"0 +0\.5000 +0\.4000 to 0\.6000 +50 *\n", output)
    assert re.search(r"\[1\] +0\.7000 +0\.6000 to 0\.8000 +3\* *\n", output)
    assert "* few images" in output
    assert "*" not in render(tables.accuracy_table("by class", rows[:1]))


def test_long_tables_show_their_first_rows() -> None:
    rows = [Row(name=f"c{k}\n\x1b[1m", **make_estimate(0.5)) for k in range(25)]
    output = render(tables.accuracy_table("by class", rows))
    assert "c19 \\x1b[1m" in output
    assert "c20" not in output
    assert "and 5 more" in output


def make_result(**test: float | None) -> Result:
    last_scores, best_scores = CheckpointScores(epoch=4, test=test), CheckpointScores(epoch=3, test=test)
    run = Result(project="P", experiment="E", method="lntl", seed=0, last=last_scores, best=best_scores)
    return run.model_copy(update={"erm": run})


def test_the_result_table_shows_both_checkpoints_erm_and_the_paper() -> None:
    output = render(tables.result_table(make_result(accuracy=0.75, bias_accuracy=0.25, aligned_accuracy=None), 0.03))
    assert re.search(r"lntl, last +4 +0\.7500 +0\.2500 +undefined *\n", output)
    assert re.search(r"lntl, best on val +3 +0\.7500 +0\.2500 +undefined *\n", output)
    assert re.search(r"plain training \(ERM\) +4 +0\.7500 +undefined *\n", output)  # no bias head
    assert re.search(r"paper: LNTL +100 +0\.9137 *\n", output)
    assert "paper" not in render(tables.result_table(make_result(accuracy=0.75), None))


def test_a_run_that_does_not_train_h_has_no_column_for_it() -> None:
    result = make_result(accuracy=0.75, bias_accuracy=None).model_copy(update={"method": "erm"})
    output = render(tables.result_table(result, None))
    assert "bias (h)" not in output
    assert re.search(r"this run, last +4 +0\.7500 *\n", output)  # not "erm": a row above has this name


def test_the_result_table_shows_the_first_five_metrics() -> None:
    scores = {f"m{i}": i / 10 for i in range(7)}
    output = render(tables.result_table(make_result(**scores), None))
    assert re.search(r"lntl, last +4 +0\.0000 +0\.1000 +0\.2000 +0\.3000 +0\.4000 *\n", output)
