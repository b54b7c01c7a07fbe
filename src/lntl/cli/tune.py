"""`lntl tune`: search the settings that are best on val; and `lntl tune-job`, hidden: a process of it."""

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
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Seeds that each trial is averaged over.")]


def tune(
    config: ConfigArgument,
    space: SpaceArgument,
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, max=100_000, help="Trials of the study, with those it has.")] = 20,
    storage: Storage = "",
    jobs: Annotated[int, typer.Option(min=1, max=1024, help="Processes; with several, one thread each.")] = 1,
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

    read = read_space(space)
    check_space(space, read, config, overrides or [])
    tuning = studies.Tuning(config, overrides or [], read, seeds, storage)
    console.log_to_console()
    console.log.setLevel("WARNING")  # of each trial one line, not one an epoch
    keep_freed_memory()
    study = studies.open_study(tuning)
    write_text(tuning.folder / ".gitignore", "trials/\n*.log\n*.journal*\n")
    with studies.storage_errors(storage):
        waiting = studies.queue_trials(study, trials)
    console.echo(f"study {read.name}: {waiting} of {trials} trials are to be made; {tuning.objective} on val decides")
    with experiment.stop_signals() as stop:
        try:
            if jobs == 1 or waiting < 2:
                with studies.storage_errors(storage):
                    studies.run_trials(tuning, study, stop, console.echo)
            else:
                _run_jobs(tuning, [config, str(space), *(overrides or [])], min(jobs, waiting), stop)
        except Interrupted as interrupted:
            print(interrupted, file=sys.stderr)
            raise SystemExit(130) from None
    with studies.storage_errors(storage):
        found = studies.summarise(tuning, study)
    paths = studies.write_results(tuning, found)
    best = paths[1].read_text(encoding="utf-8") if len(paths) > 1 else ""
    paths += write_study(found, best, tuning.folder)
    if best:
        winner = next(trial for trial in found.trials if trial.number == found.best)
        console.echo(f"best: trial {winner.number}, {tuning.objective} {winner.value:.4f} on val")
        console.echo(f"lntl train {paths[1]} trains it")
    console.echo_paths(paths)
    if not best:
        raise SystemExit(1)


def _run_jobs(tuning: "Tuning", arguments: list[str], jobs: int, stop: "Stop") -> None:
    """Make the queued trials in several processes; raises Interrupted or, if one of them failed, UserError."""
    import os
    import subprocess
    import sys
    import time

    from lntl.benchmark.runner import STOPPED
    from lntl.errors import Interrupted, UserError

    command = [sys.executable, "-P", "-m", "lntl", "tune-job", *arguments]
    command += ["--storage", tuning.storage, "--seeds", str(tuning.seeds)]
    logs = [tuning.folder / f"job-{number}.log" for number in range(1, jobs + 1)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    workers, stopped = [], False
    for log in logs:
        with log.open("wb") as file:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closes when this process dies, which the worker notices
                stdout=file,
                stderr=file,
                env=os.environ | one_thread,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its workers
            )
        workers.append(worker)
    try:
        while not stopped and any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            stopped = stop() or any(worker.poll() not in (None, 0) for worker in workers)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            with worker:
                worker.wait()
    for worker, log in zip(workers, logs, strict=True):
        if worker.returncode not in (0, STOPPED) and not stop():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            raise UserError(f"a process of the study ended with {worker.returncode} ({log}): {lines[-1]}")
    if stopped:
        raise Interrupted("stopped; the same command continues the study")


def tune_job(
    config: ConfigArgument,
    space: SpaceArgument,
    overrides: Overrides = None,
    storage: Storage = "",
    seeds: Seeds = 1,
) -> None:
    """Make queued trials of a study until none waits; stop when the process that started this one ends."""
    import threading

    from lntl import experiment
    from lntl.cli import console
    from lntl.cli.benchmark import stop_with_the_parent
    from lntl.cli.train import keep_freed_memory
    from lntl.tuning import study as studies
    from lntl.tuning.space import read_space

    threading.Thread(target=stop_with_the_parent, daemon=True).start()
    keep_freed_memory()
    console.log_to_console()
    tuning = studies.Tuning(config, overrides or [], read_space(space), seeds, storage)
    with experiment.stop_signals() as stop, studies.storage_errors(storage):
        studies.run_trials(tuning, studies.open_study(tuning), stop, console.echo)
