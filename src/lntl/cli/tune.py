"""`lntl tune`: search the settings that are best on val; and `lntl tune-job` (hidden): one process of this search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lntl.cli.arguments import ConfigArgument, Overrides

if TYPE_CHECKING:
    from lntl.experiment.run import Stop
    from lntl.tuning.study import Tuning

SpaceArgument = Annotated[
    Path, typer.Argument(metavar="SPACE.yaml", readable=False, help="Keys of the configuration and values to try.")
]
Storage = Annotated[
    str, typer.Option(metavar="PATH_OR_URL", help="Journal file or database that several machines may share.")
]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Number of seeds of each trial; its score is their mean.")]


def tune(
    config: ConfigArgument,
    space: SpaceArgument,
    overrides: Overrides = None,
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, help="Total number of trials of the study, with those already made.")
    ] = 20,
    storage: Storage = "",
    jobs: Annotated[
        int, typer.Option(min=1, max=1024, help="Number of processes; if more than 1, each has one thread.")
    ] = 1,
    seeds: Seeds = 1,
) -> None:
    """Search the settings that are best on val; after a stop the same command continues."""
    import sys

    from lntl import experiment
    from lntl.cli import console
    from lntl.cli.train import keep_freed_memory
    from lntl.errors import Interrupted
    from lntl.reporting.pages import write_study
    from lntl.runs.files import write_text
    from lntl.tuning import study as studies
    from lntl.tuning.space import check_space, read_space

    search_space = read_space(space)
    check_space(space, search_space, config, overrides or [])
    tuning = studies.Tuning(config, overrides or [], search_space, seeds, storage)
    console.log_to_console()
    console.log.setLevel("WARNING")  # print one line per trial, not one per epoch
    keep_freed_memory()
    study = studies.open_study(tuning)
    write_text(tuning.folder / ".gitignore", "trials/\n*.log\n*.journal*\n")
    with studies.storage_errors(tuning.target):
        num_waiting = studies.queue_trials(study, trials)
    console.echo(
        f"study {search_space.name}: {num_waiting} of {trials} trials remain; they are compared by "
        f"{tuning.objective} on val"
    )
    with experiment.stop_signals() as stop:
        try:
            if jobs == 1 or num_waiting < 2:
                with studies.storage_errors(tuning.target):
                    studies.run_trials(tuning, study, stop, console.echo)
            else:
                _run_jobs(tuning, [config, str(space), *(overrides or [])], min(jobs, num_waiting), stop)
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            raise SystemExit(130) from None
    with studies.storage_errors(tuning.target):
        summary = studies.summarise(tuning, study)
    paths = studies.write_results(tuning, summary)
    best_yaml = paths[1].read_text(encoding="utf-8") if len(paths) > 1 else ""
    paths += write_study(summary, best_yaml, tuning.folder)
    if best_yaml:
        best_trial = next(trial for trial in summary.trials if trial.number == summary.best)
        console.echo(f"best: trial {best_trial.number}, {tuning.objective} {best_trial.value:.4f} on val")
        console.echo(f"lntl train {paths[1]} trains it")
    console.echo_paths(paths)
    if not best_yaml:
        raise SystemExit(1)


def _run_jobs(tuning: "Tuning", arguments: list[str], jobs: int, stop: "Stop") -> None:
    """Make the queued trials in several processes; raises Interrupted or, if one of them failed, UserError."""
    import os
    import subprocess
    import sys
    import time

    from lntl.benchmark.runner import STOPPED_CODE
    from lntl.errors import Interrupted, UserError

    command = [sys.executable, "-P", "-m", "lntl", "tune-job", *arguments]
    command += ["--storage", tuning.storage, "--seeds", str(tuning.seeds)]
    logs = [tuning.folder / f"job-{number}.log" for number in range(1, jobs + 1)]
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    workers, is_stopped = [], False
    for log in logs:
        with log.open("wb") as file:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # the pipe closes when this process dies, and then the worker stops
                stdout=file,
                stderr=file,
                env=os.environ | environment,
                start_new_session=True,  # Ctrl-C reaches only this process, which then stops the workers
            )
        workers.append(worker)
    try:
        while not is_stopped and any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            is_stopped = stop() or any(worker.poll() not in (None, 0) for worker in workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            with worker:
                worker.wait()
    for worker, log in zip(workers, logs, strict=True):
        if worker.returncode not in (0, STOPPED_CODE) and not stop():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            raise UserError(f"a process of the study ended with exit code {worker.returncode} ({log}): {lines[-1]}")
    if is_stopped:
        raise Interrupted("stopped; the same command continues the study")


def tune_job(
    config: ConfigArgument,
    space: SpaceArgument,
    overrides: Overrides = None,
    storage: Storage = "",
    seeds: Seeds = 1,
) -> None:
    """Make queued trials of a study until the queue is empty; stop when the process that started this one ends."""
    import threading

    from lntl import experiment
    from lntl.cli import console
    from lntl.cli.benchmark import stop_with_parent
    from lntl.cli.train import keep_freed_memory
    from lntl.tuning import study as studies
    from lntl.tuning.space import read_space

    threading.Thread(target=stop_with_parent, daemon=True).start()
    keep_freed_memory()
    console.log_to_console()
    tuning = studies.Tuning(config, overrides or [], read_space(space), seeds, storage)
    with experiment.stop_signals() as stop, studies.storage_errors(tuning.target):
        studies.run_trials(tuning, studies.open_study(tuning), stop, console.echo)
