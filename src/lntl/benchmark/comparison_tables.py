"""A comparison as Markdown, CSV, LaTeX, and as a table in the terminal."""

import csv
import io
from collections.abc import Callable
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lntl.benchmark.comparison import Comparison, MethodRow, SeedScores

_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_LATEX |= {"²": "$^2$", "±": r"$\pm$"} | {c: rf"\{c}" for c in "&%$#_{}"}


def number(value: float) -> str:
    """Return .9137 for 0.9137, as tables of accuracies have it."""
    text = f"{value:.4f}"
    return text.removeprefix("0") if 0 <= value < 1 else text


def heads(columns: list[Any]) -> list[str]:
    """Return the columns' values as text, numbers with as many decimals as the longest of them."""
    floats = [value for value in columns if isinstance(value, float)]
    decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in floats), default=0)
    texts = [f"{value:.{decimals}f}" if isinstance(value, float) else str(value) for value in columns]
    return ["as configured" if value is None else text for value, text in zip(columns, texts, strict=True)]


def score_text(scores: SeedScores | None, usual_n: int) -> str:
    """Return mean ± std, with n where it is not the usual; empty for what was not run."""
    if scores is None or not (scores.values or scores.failed):
        return ""
    if not scores.values:
        return "failed"
    spread = "" if scores.std is None else f" ± {number(scores.std)}"
    n = len(scores.values)
    return f"{number(scores.mean)}{spread}" + ("" if n == usual_n else f" (n={n})")


def _grid(
    comparison: Comparison, bold: Callable[[str], str], plain: Callable[[str], str]
) -> list[tuple[MethodRow, list[str]]]:
    """Return each row with the text of its scores, the best of each column made bold."""
    table = []
    for row in comparison.rows:
        texts = []
        for column in comparison.columns:
            scores = row.scores.get(column)
            text = plain(score_text(scores, 1 if row.source else comparison.usual_n))
            is_best = scores is not None and bool(scores.values) and scores.mean == comparison.best(column)
            texts.append(bold(text) if is_best else text)
        table.append((row, texts))
    return table


def markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, with its notes."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = _grid(comparison, lambda text: f"**{text}**", _markdown_text)
    top = line([_markdown_text(_title(comparison)), *map(_markdown_text, heads(comparison.columns))])
    lines = [top, line(["---", *["---:"] * len(comparison.columns)])]
    lines += [line([_markdown_text(row.name), *texts]) for row, texts in rows]
    return "\n".join([*lines, "", *(f"{_markdown_text(note)}  " for note in comparison.notes)]).rstrip() + "\n"


def _title(comparison: Comparison) -> str:
    return f"{comparison.metric.replace('_', ' ')} by {comparison.meaning}" if comparison.by else comparison.metric


def _markdown_text(text: str) -> str:
    return "".join(f"\\{c}" if c in "|*_<`" else c for c in text)


def to_csv(comparison: Comparison) -> str:
    """Return one line for each method and value of the grid, with all digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "source", comparison.by or "", "metric", "n", "mean", "std", "failed_seeds"])
    for row in comparison.rows:
        for column in comparison.columns:
            scores = row.scores.get(column)
            if scores is None or not (scores.values or scores.failed):
                continue
            mean = repr(scores.mean) if scores.values else ""
            std = "" if scores.std is None else repr(scores.std)
            failed = " ".join(map(str, scores.failed))
            n = len(scores.values)
            writer.writerow([row.name, row.source or "ours", column, comparison.metric, n, mean, std, failed])
    return file.getvalue()


def latex(comparison: Comparison) -> str:
    """Return a tabular for the package booktabs; the notes are comments above it."""
    columns = len(comparison.columns)
    rows = _grid(comparison, lambda text: rf"\textbf{{{text}}}", _latex_text)
    lines = [f"% {note}" for note in comparison.notes] + [rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
    lines.append(rf" & \multicolumn{{{columns}}}{{c}}{{{_latex_text(_title(comparison))}}} \\")
    lines.append(" & ".join(["Method", *map(_latex_text, heads(comparison.columns))]) + r" \\")
    before = None
    for row, texts in rows:
        if bool(row.source) is not before:
            lines.append(r"\midrule")
        before = bool(row.source)
        lines.append(" & ".join([_latex_text(row.name), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_text(text: str) -> str:
    return r"$\sigma^2$".join("".join(_LATEX.get(c, c) for c in part) for part in text.split("σ²"))


def terminal(comparison: Comparison) -> Table:
    """Return the table for the terminal; the notes stand below it."""
    notes = escape("\n".join(comparison.notes))
    table = Table(
        title=_title(comparison),
        title_justify="left",
        caption=notes,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method", max_width=34)
    for head in heads(comparison.columns):
        table.add_column(escape(head), justify="right")
    for position, (row, texts) in enumerate(_grid(comparison, lambda text: f"[bold]{text}[/bold]", escape)):
        if position == len(comparison.ours):
            table.add_section()
        table.add_row(escape(row.name), *texts)
    return table
