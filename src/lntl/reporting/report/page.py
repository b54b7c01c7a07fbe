"""Put facts and figures into the page, report.json and report.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lntl import __version__
from lntl.errors import UserError
from lntl.reporting.report.compare import comparison, pareto
from lntl.reporting.report.drawings import drawings
from lntl.reporting.report.facts import Facts, run_facts
from lntl.reporting.report.html import environment, own
from lntl.reporting.report.reading import RunFiles, read
from lntl.runs.files import write_text

MOST_DRAWN = 10  # runs with figures in a page of several, so that it stays below 5 MB
FORMAT = 1  # of report.json; raise it when the content changes its meaning


def write_report(runs: Sequence[Path], out: Path, notes: Mapping[Path, list[str]] | None = None) -> Path:
    """Write index.html, report.json and report.md about run folders into `out`; return the page.

    `notes` are warnings to add to those of a run. Raises UserError where a path is no run folder.
    """
    read_runs = [(read(path), (notes or {}).get(path, [])) for path in runs]
    facts = [run_facts(files, told) for files, told in read_runs]
    report: Facts = {
        "format": FORMAT,
        "lntl": __version__,
        "runs": facts,
        "comparison": comparison(facts) if len(facts) > 1 else None,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot make the folder: {error.strerror}; name another one with --out") from error
    page = render_page(report, [files for files, _ in read_runs])
    write_text(out / "index.html", page)
    write_text(out / "report.md", environment().get_template("report.md").render(report))
    write_text(out / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return out / "index.html"


def render_page(report: Facts, runs: Sequence[RunFiles]) -> str:
    """Return the page: one HTML document that needs nothing else."""
    templates = environment()
    shown = [
        {
            "facts": facts,
            "files": files,
            "id": f"run{number}",
            "figures": drawings(files, facts, f"run{number}") if number <= MOST_DRAWN else None,
        }
        for number, (facts, files) in enumerate(zip(report["runs"], runs, strict=True), 1)
    ]
    compared = report["comparison"]
    return templates.get_template("page.html").render(
        report=report,
        runs=shown,
        pareto=pareto(compared["rows"]) if compared else None,
        style=own(templates, "style.css"),
        script=own(templates, "script.js"),
    )
