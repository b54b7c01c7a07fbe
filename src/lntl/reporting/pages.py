"""Write pages: the report of runs, the model card of a run, and the audit of data."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files as resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from numpy.typing import NDArray
from pydantic import BaseModel

from lntl import __version__
from lntl.config import check_trusted
from lntl.errors import UserError
from lntl.evaluation.metrics import format_count
from lntl.methods import load_method
from lntl.reporting.drawings import draw, draw_check, draw_run, pareto, study_figures
from lntl.reporting.run_files import RunFiles, read_run
from lntl.reporting.run_report import command, compare_runs, groups_note, layer_label, run_report
from lntl.reporting.tables import MAX_ROWS
from lntl.reporting.verdict import MAX_LISTED_BIASES, check_verdict, duration, percent, shift_sentences
from lntl.runs.files import write_atomic, write_json, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Check, Estimate, Report, Study
from lntl.text import markdown, markdown_code, shell

MAX_RUNS_WITH_FIGURES = 10  # largest number of runs with figures on one page, so that it stays below 5 MB
FORMAT = 1  # version of the format of report.json


def write_report(runs: Sequence[Path], out: Path, notes: Mapping[Path, Sequence[str]] | None = None) -> Path:
    """Write index.html, report.json and report.md about run folders into `out`; return the path of index.html.

    `notes` are further warnings of a run, by its folder. Raises UserError if a path is not a run folder.
    """
    files = [read_run(path) for path in runs]
    reports = [run_report(run, (notes or {}).get(run.path, ())) for run in files]
    comparison = compare_runs(reports) if len(reports) > 1 else None
    report = Report(format=FORMAT, lntl=__version__, runs=reports, comparison=comparison)
    _make_folder(out)
    write_text(out / "index.html", render_page(report, files))
    write_text(out / "report.md", render("report.md", **_escape({"report": report}), runs=reports))
    write_text(out / "report.json", report.model_dump_json(indent=2) + "\n")
    return out / "index.html"


def render_page(report: Report, files: Iterable[RunFiles]) -> str:
    """Return the page: one HTML document that needs no other file."""
    run_pages = [
        {
            "report": run,
            "config_text": folder.config_text,
            "id": f"run{number}",
            "figures": draw_run(folder, run, f"run{number}") if number <= MAX_RUNS_WITH_FIGURES else None,
        }
        for number, (run, folder) in enumerate(zip(report.runs, files, strict=True), 1)
    ]
    comparison = pareto(report.comparison.rows) if report.comparison else None
    return render("page.html", report=report, runs=run_pages, pareto=comparison)


def write_card(run: Path, trust: Sequence[str] = ()) -> Path:
    """Write MODEL_CARD.md into a run folder, from the files of the run; return its path.

    Raises UserError if `run` is not a run folder, UntrustedError if its configuration names code not in `trust`.
    """
    files = read_run(run)
    check_trusted(files.config, str(RunFolder(run).config), trust)
    report = run_report(files)
    texts = {
        "report": report,
        "description": files.section("project").get("description", ""),
        "model": files.section("model"),
        "phases": list(zip(report.phases, map(_summarise_method, files.phases), strict=True)),
        "per_bias": list((files.evaluation.per_bias if files.evaluation else {}).items()),
    }
    module = str(files.section("model").get("name", "")).rpartition(".")[0]  # module of a user's own model
    text = render(
        "card.md",
        **_escape(texts),
        sizes=files.result.sizes if files.result else {},
        inputs="arrays.npz" if files.section("data").get("name") == "arrays" else "images/",
        erm=files.erm is not None,
        shifts=[markdown(text) for text in shift_sentences(files.image_shift)],
        unmeasured=[(markdown(text), line) for text, line in _list_unmeasured(files, report.bias)],
        load=", trust=".join(json.dumps(name, ensure_ascii=False) for name in (str(run), module) if name),
        folder=shell(run),
        trust=module and f" --trust {shell(module)}",
    )
    write_text(RunFolder(run).card, text)
    return RunFolder(run).card


def _summarise_method(phase: Mapping[str, object]) -> str:
    """Return the summary line of the method of a phase; empty if the method is unavailable."""
    try:
        module = inspect.getmodule(load_method(str(phase.get("method"))))
    except UserError:
        return ""
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _list_unmeasured(files: RunFiles, bias: str) -> list[tuple[str, str]]:
    """Return a phrase for each missing measurement, and the command that makes it; '' if no command does."""
    texts = []
    if files.evaluation is None:
        texts.append(("Accuracy on the test split, by group, with intervals.", command("eval", files.path)))
    if not files.has_bias:
        texts.append(("Anything about a bias: no test image has a bias label.", ""))
    elif files.probe is None:
        texts.append((f"How much of the {bias} is left in the features.", command("probe", files.path)))
    if files.recoloring is None and files.image_shift is None and files.has_bias:
        texts.append((f"Whether predictions change when only the {bias} of an image changes.", ""))
    if files.erm is None and not files.is_plain:
        texts.append(("Plain training (ERM) on the same data: the gain and the cost of unlearning are not known.", ""))
    return [
        *texts,
        ("Other seeds: every number is from this one run, and the intervals are over test images only.", ""),
        ("Data from elsewhere: the test split comes from the same source as the training images.", ""),
        (f"Any bias other than the {bias}.", ""),
    ]


def write_study(study: Study, best_yaml: str, out: Path) -> list[Path]:
    """Write index.html, history.png and importance.png into `out`; return them."""
    _make_folder(out)
    parts = [*study_figures(study)]
    figures = {name: draw(make, name, alt) for name, make, alt in parts}
    trials = sorted(study.trials, key=lambda trial: (trial.state != "complete", *_make_sort_key(study, trial.value)))
    write_text(
        out / "index.html", render("study.html", study=study, trials=trials, figures=figures, best_yaml=best_yaml)
    )
    for name, make, _ in parts:
        write_atomic(out / f"{name}.png", partial(make().savefig, format="png", dpi=150))
    return [out / "index.html", *(out / f"{name}.png" for name, _, _ in parts)]


def _make_sort_key(study: Study, value: float | None) -> tuple[bool, float]:
    """Return a sort key: the best value first, None last."""
    return value is None, 0.0 if value is None else value if study.lower_is_better else -value


def write_check(check: Check, image_pairs: NDArray[np.uint8] | None, out: Path) -> list[Path]:
    """Write index.html and check.json into `out`; return both."""
    _make_folder(out)
    write_text(out / "index.html", render_check(check, image_pairs))
    write_json(out / "check.json", check)
    return [out / "index.html", out / "check.json"]


def render_check(check: Check, image_pairs: NDArray[np.uint8] | None) -> str:
    """Return the page of an audit; image_pairs: similar images, (pairs, 2, 3, H, W)."""
    figures = draw_check(check, image_pairs)
    return render("check.html", check=check, figures=figures, tiles=_make_tiles(check), verdict=check_verdict(check))


@dataclass(frozen=True)
class Tile:
    """A key number at the top of a page: label, value, a note for comparison, meaning, and perhaps a scale."""

    label: str
    value: str | None
    note: str
    meaning: str
    run: Estimate | None = None  # the value on the scale
    erm: None = None
    chance: float | None = None


def _make_tiles(check: Check) -> list[Tile]:
    association, test = check.biases[-1].association["train"], check.cells["test"]
    sizes = ", ".join(f"{split.name} {split.n}" for split in check.splits)
    values = format_count(len(check.biases[-1].values), "bias value") if check.annotated else "no bias labels"
    bias_only, v, majority, smallest = association.bias_only, association.cramers_v, association.majority, test.smallest
    difference = "" if test.difference is None else f"{100 * test.difference:.0f}"
    rows = Tile("Rows", str(check.n), sizes, f"{len(check.class_names)} classes, {values}")
    if not check.annotated:
        return [rows]
    return [
        rows,
        Tile(
            "Label predicted from the bias",
            None if bias_only is None else percent(bias_only),
            "" if majority is None else f"most frequent class {percent(majority)}",
            "accuracy of the best rule from bias value to class on the training rows",
            None if bias_only is None else Estimate(value=bias_only),
            chance=majority,
        ),
        Tile(
            "Cramér's V",
            None if v is None else f"{v:.2f}",
            association.undefined or "",
            "association of label and bias in training: 0 if independent, 1 if one determines the other",
            None if v is None else Estimate(value=v),
        ),
        Tile(
            "Smallest test group",
            None if smallest is None else str(smallest.n),
            "" if smallest is None else smallest.name,
            f"enough to show differences of {difference} points or more in worst-group accuracy" if difference else "",
        ),
    ]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make the folder: {error.strerror}; name another one with --out") from error


def render(name: str, **content: object) -> str:
    """Return a template filled with this content; HTML is escaped, and an unknown name is an error."""
    templates = Environment(
        loader=PackageLoader("lntl.reporting"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": percent,
        "duration": duration,
        "span": _format_interval,
        "code": markdown_code,
        "layer": layer_label,
        "groups_note": groups_note,
        "command": command,
    }
    templates.globals |= {"max_rows": MAX_ROWS, "max_biases": MAX_LISTED_BIASES}
    for asset in ("style.css", "script.js"):
        source = (resources("lntl.reporting") / "templates" / asset).read_text(encoding="utf-8")
        templates.globals[asset.partition(".")[0]] = Markup(source)  # not escaped
    return templates.get_template(name).render(content)


def _escape(content: Mapping[str, object]) -> dict[str, object]:
    """Return the content with every string escaped for Markdown."""
    return {name: _escape_value(value) for name, value in content.items()}


def _escape_value(value: object) -> object:
    match value:
        case str():
            return markdown(value)
        case list() | tuple():
            return [_escape_value(item) for item in value]
        case dict():
            return _escape(value)
        case BaseModel():
            return value.model_copy(update=_escape(dict(value)))
    return value


def _format_interval(estimate: Estimate) -> str:
    """Return the interval of an estimate in per cent, e.g. 80.4–83.8; empty if it has none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f}\u2013{100 * estimate.high:.1f}"
