"""What `lntl benchmark` and `lntl compare` do."""

import os
import statistics
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

from matplotlib import rc_context
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from lntl import commands
from lntl.benchmark import comparison, comparison_tables, results
from lntl.benchmark import plan as plans
from lntl.benchmark.comparison import Planned
from lntl.benchmark.comparison_figure import comparison_figure
from lntl.benchmark.plan import Job, Plan
from lntl.benchmark.results import Line
from lntl.benchmark.runner import Benchmark, Progress
from lntl.cli import console
from lntl.cli.console import log, out, tell
from lntl.errors import Interrupted, UserError
from lntl.runs.files import write_atomic, write_text
from lntl.yaml_file import read_yaml

_WORKER = (sys.executable, "-P", "-m", "lntl.worker")


def benchmark(path: Path, *, workers: int | None, dry_run: bool, only: list[str]) -> None:
    """Make the runs of a plan that are missing; exit code 1 where one failed, 130 where it was stopped."""
    plan = plans.read(path)
    jobs = plans.only(plans.jobs(plan, path), only)
    bench = Benchmark(path.parent / plan.results, _WORKER, workers or _cores(), plan.keep_runs, plan.split)
    if dry_run:
        _show_plan(bench, jobs)
        return
    console.log_to_console()
    with commands.stop_signals() as stopped:
        try:
            failed = _run(bench, jobs, stopped)
        except Interrupted as stop:
            print(f"{stop}. To go on, give the same command.", file=sys.stderr)
            raise SystemExit(130) from None
    tell(f"{len(jobs) - len(failed)} of {len(jobs)} runs are done: {bench.results}")
    if failed:
        for job, line in failed:
            print(f"failed: {job.told}: {line['error']} ({bench.scratch / job.id}.log)", file=sys.stderr)
        raise SystemExit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(bench: Benchmark, jobs: list[Job], stopped: list[int]) -> list[tuple[Job, Line]]:
    """Run them, showing how far it is; return those that failed."""
    failed: list[tuple[Job, Line]] = []
    waiting = bench.missing(jobs)
    clock = _Clock(bench, waiting)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(
        *columns, TextColumn("{task.fields[told]}"), console=console.err, disable=not console.err.is_terminal
    ) as bar:
        task = bar.add_task("runs", total=len(jobs), completed=len(jobs) - len(waiting), told="")
        for progress in bench.run(jobs, lambda: bool(stopped)):
            left = clock.left(progress)
            bar.update(task, told=f"{left} [dim]{escape(', '.join(job.told for job in progress.running))}[/dim]")
            if progress.ended is not None:
                job, line = progress.ended
                failed += [progress.ended] if results.failed(line) else []
                bar.advance(task)
                log.info("%s: %s; %s", job.told, _told(line), left)
    return failed


def _told(line: Line) -> str:
    if results.failed(line):
        return f"failed: {line['error']}"
    scores = [f"{name}={value:.4f}" for name, value in line["metrics"].items() if value is not None]
    return f"{' '.join(scores)} in {line['seconds']:.0f} s"


class _Clock:
    """Estimates the time left from the seconds that finished runs took, of the same name where there are some."""

    def __init__(self, bench: Benchmark, waiting: list[Job]) -> None:
        self._workers = bench.workers
        self._left = {job.id: job for job in waiting}
        self._began: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}
        for line in results.read(bench.results):
            self._take(line)

    def _take(self, line: Line) -> None:
        seconds = line.get("wall_seconds") or line.get("seconds")
        if seconds is not None:
            self._seconds.setdefault(line["name"], []).append(seconds)

    def left(self, progress: Progress) -> str:
        """Return the time left in words; unknown before the first run has ended."""
        now = time.monotonic()
        for job in progress.running:
            self._began.setdefault(job.id, now)
        if progress.ended is not None:
            self._left.pop(progress.ended[0].id)
            self._take(progress.ended[1])
        if not self._seconds:
            return "time left: known after the first run"
        needs = [
            self._estimate(job) - min(now - self._began.get(id, now), 0.9 * self._estimate(job))
            for id, job in self._left.items()
        ]
        return f"about {timedelta(seconds=round(max([sum(needs) / self._workers, *needs])))} left" if needs else ""

    def _estimate(self, job: Job) -> float:
        everything = [seconds for each in self._seconds.values() for seconds in each]
        return statistics.fmean(self._seconds.get(job.name, everything))


def _show_plan(bench: Benchmark, jobs: list[Job]) -> None:
    missing = {job.id for job in bench.missing(jobs)}
    failed = {results.key(line) for line in results.read(bench.results) if results.failed(line)}
    table = Table("run", "state", title=f"{len(missing)} of {len(jobs)} runs are missing", title_justify="left")
    for job in jobs:
        state = "failed" if job.key in failed else "begun" if (bench.scratch / job.id).exists() else "missing"
        table.add_row(escape(job.told), state if job.id in missing else "done")
    out.print(table)


def compare(path: Path, *, plan: Path | None, folder: Path | None, metric: str, by: str | None) -> None:
    """Show the table of a results file and write it, and its figure, into a folder."""
    if not path.is_file():
        raise UserError(f"{path}: there are no such results; make them with: lntl benchmark PLAN.yaml")
    plan = plan or _plan_beside(path)
    table = comparison.compare(results.read(path), None if plan is None else _planned(plan), metric, by)
    out.print(comparison_tables.terminal(table))
    before = "" if path.stem == "results" else f"{path.stem}_"  # results of several plans may lie in a folder
    for file in _write(table, path.parent if folder is None else folder, before):
        tell(f"  {file}")


def _plan_beside(path: Path) -> Path | None:
    """Return the plan in the folder of the results whose runs they are, None where there is none."""
    default = Plan.model_fields["results"].default
    for beside in sorted(path.parent.glob("*.yaml")):
        raw = read_yaml(beside)
        if isinstance(raw, dict) and "runs" in raw and raw.get("results", default) == path.name:
            return beside
    return None


def _planned(path: Path) -> list[Planned]:
    """Return the runs of a plan in the order of its rows."""
    plan = plans.read(path)
    labels = {entry.name: entry.label or entry.name for entry in plan.runs}
    order = list(labels)
    jobs = sorted(plans.jobs(plan, path), key=lambda job: order.index(job.name))
    return [Planned(labels[job.name], job.key, job.cell) for job in jobs]


def _write(table: comparison.Comparison, folder: Path, before: str) -> list[Path]:
    """Write table.md, .csv, .tex and figure.png, .svg, with `before` before their names; return their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    texts = {
        f"{before}table.md": comparison_tables.markdown(table),
        f"{before}table.csv": comparison_tables.to_csv(table),
        f"{before}table.tex": comparison_tables.latex(table),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    figure, drawn = comparison_figure(table), [f"{before}figure.png", f"{before}figure.svg"]
    with rc_context({"svg.hashsalt": "lntl"}):  # with no date, the same file for the same results
        for name, date in zip(drawn, ("Software", "Date"), strict=True):
            save = partial(figure.savefig, format=Path(name).suffix[1:], dpi=150, metadata={date: None})
            write_atomic(folder / name, save)
    return [folder / name for name in (*texts, *drawn)]
