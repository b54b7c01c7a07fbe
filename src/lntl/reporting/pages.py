"""Write the pages of a run: its report (index.html, report.json, report.md) and its model card (MODEL_CARD.md)."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from lntl import __version__
from lntl.config import check_trusted
from lntl.errors import UserError
from lntl.methods import load_method
from lntl.reporting.drawings import drawings, pareto
from lntl.reporting.run_files import RunFiles, read_run
from lntl.reporting.run_report import compare_runs, layer_label, run_report
from lntl.reporting.verdict import duration, percent
from lntl.runs.files import write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Estimate, Report

MOST_DRAWN = 10  # runs with figures in a page of several, so that it stays below 5 MB
FORMAT = 1  # of report.json


def write_report(runs: Sequence[Path], out: Path, notes: Mapping[Path, Sequence[str]] | None = None) -> Path:
    """Write index.html, report.json and report.md about run folders into `out`; return the page.

    `notes` are warnings to add to those of a run. Raises UserError where a path is no run folder.
    """
    files = [read_run(path) for path in runs]
    reports = [run_report(run, (notes or {}).get(run.path, ())) for run in files]
    comparison = compare_runs(reports) if len(reports) > 1 else None
    report = Report(format=FORMAT, lntl=__version__, runs=reports, comparison=comparison)
    make_folder(out)
    write_text(out / "index.html", render_page(report, files))
    write_text(out / "report.md", environment().get_template("report.md").render(report=report))
    write_text(out / "report.json", report.model_dump_json(indent=2) + "\n")
    return out / "index.html"


def make_folder(path: Path) -> None:
    """Make the folder of a page; raises UserError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot make the folder: {error.strerror}; name another one with --out") from error


def render_page(report: Report, files: Iterable[RunFiles]) -> str:
    """Return the page: one HTML document that needs no other file."""
    templates = environment()
    shown = [
        {
            "report": run,
            "config_text": folder.config_text,
            "id": f"run{number}",
            "figures": drawings(folder, run, f"run{number}") if number <= MOST_DRAWN else None,
        }
        for number, (run, folder) in enumerate(zip(report.runs, files, strict=True), 1)
    ]
    return templates.get_template("page.html").render(
        report=report,
        runs=shown,
        pareto=pareto(report.comparison.rows) if report.comparison else None,
        style=raw_file(templates, "style.css"),
        script=raw_file(templates, "script.js"),
    )


def write_card(run: Path, trust: Sequence[str] = ()) -> Path:
    """Write MODEL_CARD.md into a run folder, from its files alone; return it.

    Raises UserError where it is none, and UntrustedError where its configuration names code that `trust` does not.
    """
    files = read_run(run)
    check_trusted(files.config, str(RunFolder(run).config), trust)
    report = run_report(files)
    text = (
        environment()
        .get_template("card.md")
        .render(
            report=report,
            description=files.section("project").get("description", ""),
            model=files.section("model"),
            phases=zip(report.phases, map(_method_summary, files.phases), strict=True),
            sizes=files.result.sizes if files.result else {},
            per_bias=files.evaluation.per_bias if files.evaluation else {},
            inputs="arrays.npz" if files.section("data").get("name") == "arrays" else "images/",
            erm=files.erm is not None,
            trust=str(files.section("model").get("name", "")).rpartition(".")[0],
            unmeasured=_unmeasured(files, report.bias),
        )
    )
    card = RunFolder(run).card
    write_text(card, text)
    return card


def _method_summary(phase: Mapping[str, object]) -> str:
    """Return what the method of a phase is, in a line; empty where it is not to be found."""
    try:
        module = inspect.getmodule(load_method(str(phase.get("method"))))
    except UserError:
        return ""
    return (inspect.getdoc(module) or "").partition("\n")[0]


def _unmeasured(files: RunFiles, bias: str) -> list[str]:
    """Return a sentence for each thing that a user could take for known and that was not measured."""
    run, texts = files.path, []
    if files.evaluation is None:
        texts.append(f"Accuracy on the test split, over groups, with intervals: `lntl eval {run}` measures it.")
    if files.probe is None:
        texts.append(f"How much of the {bias} is left in the features: `lntl probe {run}` measures it.")
    if files.recoloring is None:
        texts.append(f"Whether a prediction changes where nothing but the {bias} of its image does.")
    if files.erm is None and files.method != "erm":
        texts.append("Plain training (ERM) on the same data: what unlearning gained and cost is not known.")
    return [
        *texts,
        "Other seeds: every number is of this one run, and the intervals are over test images alone.",
        "Data from elsewhere: the test split comes from the same source as the training images.",
        f"Any bias but the {bias}.",
    ]


def environment() -> Environment:
    """Return the templates; values are escaped in HTML, and a name that does not exist is an error."""
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
        "span": _span,
        "cell": _cell,
        "code": _code,
        "layer": layer_label,
    }
    return templates


def raw_file(templates: Environment, name: str) -> Markup:
    """Return a file of the templates as it is, without escaping."""
    assert templates.loader is not None
    return Markup(templates.loader.get_source(templates, name)[0])


def _span(estimate: Estimate) -> str:
    """Return the interval of an estimate, e.g. 80.4 to 83.8; empty where it has none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f}\u2013{100 * estimate.high:.1f}"


def _code(text: str) -> Markup:
    """Return text as HTML, with code where it has backticks."""
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)))


def _cell(text: object) -> str:
    """Return text for a cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())
