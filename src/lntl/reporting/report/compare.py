"""Several runs beside each other."""

from collections import Counter
from typing import Any

from lntl import figures
from lntl.reporting.report.facts import Facts
from lntl.reporting.report.svg import Drawing, draw
from lntl.reporting.report.verdict import percent


def comparison(runs: list[Facts]) -> Facts:
    """Return the question, the answer in a sentence, and a row for each run and for each plain training beside one."""
    often = Counter(run["name"] for run in runs)
    rows: list[Facts] = []
    for run in runs:
        name = run["name"] if often[run["name"]] == 1 else run["folder"]
        common = {"seed": run["seed"], "chance": _number(run, "leakage")["chance"]}
        rows.append(
            {"name": name, "method": run["method"], "verdict": run["verdict"]["word"]} | common | _values(run, "run")
        )
        twin = {"name": f"ERM beside {name}", "method": "erm", "verdict": None} | common | _values(run, "erm")
        if any(twin[key] for key in _KEYS) and not any(_same(twin, row) for row in rows):
            rows.append(twin)
    return {"question": "Which run unlearned what, and at what price?", "answer": _answer(rows), "rows": rows}


_KEYS = ("unbiased_accuracy", "worst_group_accuracy", "leakage", "flip_rate")


def _number(run: Facts, name: str) -> Facts:
    return next(number for number in run["key_numbers"] if number["name"] == name)


def _values(run: Facts, whose: str) -> Facts:
    return {name: _number(run, name)[whose] for name in _KEYS}


def _same(one: Facts, other: Facts) -> bool:
    return all(one[key] == other[key] for key in ("method", *_KEYS))


def value(row: Facts, name: str) -> float | None:
    """Return a number of a row of the comparison, None where it was not measured or is undefined."""
    return row[name]["value"] if row[name] else None


def _answer(rows: list[Facts]) -> str:
    texts = []
    for name, told, sign in (("unbiased_accuracy", "Highest unbiased accuracy", 1), ("leakage", "Least leakage", -1)):
        known = [(sign * number, row["name"]) for row in rows if (number := value(row, name)) is not None]
        if known:
            best, who = max(known)
            texts.append(f"{told}: {who} ({percent(abs(best))}).")
    return " ".join(texts) or "Nothing was measured yet."


def pareto(rows: list[Facts]) -> Drawing | None:
    """Return unbiased accuracy against leakage of the runs for which both are known, None where there is none."""
    places: dict[str, tuple[Any, Any]] = {
        row["name"]: (value(row, "unbiased_accuracy"), value(row, "leakage")) for row in rows
    }
    known = {name: place for name, place in places.items() if None not in place}
    if not known:
        return None
    accuracy, leakage = ({name: place[axis] for name, place in known.items()} for axis in (0, 1))
    chance = min((row["chance"] for row in rows if row["chance"] is not None), default=None)
    told = "; ".join(f"{name} {percent(a)} and {percent(b)}" for name, (a, b) in known.items())
    return draw(
        lambda: figures.pareto(accuracy, leakage, chance),
        "pareto",
        f"Unbiased accuracy against leakage of the runs: {told}.",
    )
