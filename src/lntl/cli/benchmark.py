"""`lntl benchmark`: make the runs of a plan; `lntl benchmark-run` (hidden): the process of one run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lntl.benchmark.plan import PlannedRun
    from lntl.benchmark.results import BenchmarkRun, ResultLine
    from lntl.benchmark.runner import Benchmark, BenchmarkProgress


def benchmark(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", readable=False, help="Configurations, values, seeds.")],
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at the same time, one thread each; default: one per core, with --on per core of the cluster.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which runs are done and which are missing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Runs to make: a name (* for any text), KEY=VALUE of a grid, or seed=N; may be repeated.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="i/n", help="Make every n-th run, from the i-th on, and write the results to a separate file."
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="ray[=HOST:PORT]", help="Make the runs on a Ray cluster; default: on this machine."),
    ] = None,
) -> None:
    """Make the missing runs of a plan, several at once; the same command continues after a stop."""
    import sys
    from contextlib import nullcontext
    from functools import partial

    from lntl import experiment
    from lntl.benchmark import on_ray
    from lntl.benchmark import plan as plans
    from lntl.benchmark.runner import Benchmark
    from lntl.benchmark.shards import Shard
    from lntl.cli import console
    from lntl.errors import Interrupted, UserError

    selected_shard = None if shard is None else Shard.parse(shard)
    if selected_shard is not None and on is not None:
        raise UserError("--shard and --on: use only one of them; a cluster needs no shards")
    parsed_plan = plans.read(plan)
    runs = plans.select(plans.planned_runs(parsed_plan, plan), only or [])
    runs = runs if selected_shard is None else selected_shard.select(runs)
    command = (sys.executable, "-P", "-m", "lntl", "benchmark-run")
    num_workers = workers or (_count_cores() if on is None else 0)
    results = plan.parent / parsed_plan.results
    bench = Benchmark(results, command, num_workers, parsed_plan.keep_runs, parsed_plan.split, selected_shard)
    if dry_run:
        _print_states(bench, runs)
        return
    console.log_to_console()
    make_runs = bench.run if on is None else partial(on_ray.run, bench)
    cluster = nullcontext() if on is None else on_ray.cluster_connection(on)
    with cluster, experiment.stop_signals() as stop:  # Ray has handlers of its own for signals
        try:
            failed_runs = _run_with_progress(bench, runs, partial(make_runs, runs, stop))
        except Interrupted as interrupted:
            print(f"{interrupted}. To continue, run the same command.", file=sys.stderr)
            raise SystemExit(130) from None
    console.echo(f"{len(runs) - len(failed_runs)} of {len(runs)} runs are done: {bench.own_results}")
    for run, line in failed_runs:
        print(f"failed: {run.title}: {line.error} ({bench.scratch / run.id}.log)", file=sys.stderr)
    if failed_runs:
        raise SystemExit(1)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_states(bench: "Benchmark", runs: "list[PlannedRun]") -> None:
    """Print a table of the runs and their states: done, begun, failed or missing."""
    from rich.markup import escape
    from rich.table import Table

    from lntl.benchmark import shards
    from lntl.cli.console import out

    missing_ids = {run.id for run in bench.missing_runs(runs)}
    failed_keys = {line.key for line in shards.read(bench.results) if line.failed}
    table = Table("run", "state", title=f"{len(missing_ids)} of {len(runs)} runs are missing", title_justify="left")
    for run in runs:
        state = "failed" if run.key in failed_keys else "begun" if (bench.scratch / run.id).exists() else "missing"
        table.add_row(escape(run.title), state if run.id in missing_ids else "done")
    out.print(table)


def _run_with_progress(
    bench: "Benchmark", runs: "list[PlannedRun]", make_runs: "Callable[[], Iterator[BenchmarkProgress]]"
) -> "list[tuple[BenchmarkRun, ResultLine]]":
    """Make the missing runs with a progress bar; return those that failed."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from lntl.benchmark import shards
    from lntl.benchmark.runner import TimeLeft
    from lntl.cli import console

    failed_runs: list[tuple[BenchmarkRun, ResultLine]] = []
    waiting_runs = bench.missing_runs(runs)
    estimate = TimeLeft(bench.workers, waiting_runs, shards.read(bench.results))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(
        *columns, TextColumn("{task.fields[status]}"), console=console.err, disable=not console.err.is_terminal
    ) as bar:
        started_ids: set[str] = set()
        task = bar.add_task("runs", total=len(runs), completed=len(runs) - len(waiting_runs), status="")
        for progress in make_runs():
            time_left = estimate.update(progress)
            titles = escape(", ".join(run.title for run in progress.running_runs))
            bar.update(task, status=f"{time_left} [dim]{titles}[/dim]")
            for run in (run for run in progress.running_runs if run.id not in started_ids):
                started_ids.add(run.id)
                console.log.info("%s: started; log file: %s", run.title, bench.scratch / f"{run.id}.log")
            if progress.ended_run is not None:
                run, line = progress.ended_run
                failed_runs += [progress.ended_run] if line.failed else []
                bar.advance(task)
                console.log.info("%s", "; ".join(filter(None, (f"{run.title}: {_outcome(line)}", time_left))))
    return failed_runs


def _outcome(line: "ResultLine") -> str:
    if line.metrics is None:
        return f"failed: {line.error}"
    scores = [f"{name}={value:.4f}" for name, value in line.metrics.items() if value is not None]
    return f"{' '.join(scores)} in {line.seconds or 0:.0f} s"


def benchmark_run(config: Path, split: Annotated[Literal["test", "val"], typer.Argument()]) -> None:
    """Train or resume CONFIG, and evaluate it on SPLIT; save and stop if the parent process ends."""
    import sys
    import threading

    from lntl import config as configuration
    from lntl import experiment, ranks
    from lntl.benchmark.runner import DEAD_END_CODE
    from lntl.cli import console
    from lntl.cli.train import keep_freed_memory, show_training
    from lntl.errors import DeadEndError
    from lntl.experiment import processes

    settings = configuration.read(config)
    if not processes.is_rank():  # ranks stop with the process that started them
        threading.Thread(target=stop_with_parent, daemon=True).start()
    try:
        if processes.launch(settings):
            return
        processes.join(settings)
        console.log_to_console(ranks.is_first())
        keep_freed_memory()
        experiment.train(settings, "auto", split=split, watch=show_training if ranks.is_first() else experiment.exhaust)
    except DeadEndError as error:
        if processes.is_rank():
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(DEAD_END_CODE) from None


def stop_with_parent() -> None:
    """Wait until the parent's end of the pipe on stdin is closed, then stop as after SIGTERM."""
    import signal

    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
