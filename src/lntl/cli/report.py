"""`lntl report`: a page about a run, or a comparison of several runs."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import DeviceOption, TrustOption, configured_run


def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or configurations of trained runs.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the page; default: RUN/report for one run, results/report for several."),
    ] = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Make a page about a run, or a comparison of several runs: is the bias unlearned, and at what cost?"""
    from lntl import probing
    from lntl.cli.console import echo_paths, log, log_to_console
    from lntl.reporting.pages import write_report
    from lntl.runs.folder import RunFolder
    from lntl.trackers import add_files

    code_by_path = dict(map(_run_folder, runs))
    paths = list(code_by_path)
    log_to_console()
    notes: dict[Path, list[str]] = {}
    for path, code in code_by_path.items():
        if RunFolder(path).holds_a_run:
            if len(paths) > 1:
                log.info("%s", path)  # the following lines are about this run
            notes[path] = probing.complete(RunFolder(path), device, [*(trust or []), *code])
    if out is None and len(paths) == 1:
        RunFolder(paths[0]).check_links()
    folder = out or (RunFolder(paths[0]).report if len(paths) == 1 else Path("results/report"))
    page = write_report(paths, folder, notes)
    if len(paths) == 1:
        add_files(RunFolder(paths[0]), [folder])
    echo_paths((page, folder / "report.json", folder / "report.md"))


def _run_folder(target: str) -> tuple[Path, list[str]]:
    """Return a run folder, and the names of code in its configuration if `target` is a user's configuration."""
    from lntl.config import code_names, read, ready_names
    from lntl.errors import UserError

    if Path(target).is_dir():
        return Path(target), []
    if not Path(target).exists() and target not in ready_names():
        raise UserError(f"{target}: there is no such run folder, nor a configuration of that name; see `ls results`")
    return configured_run(target, []), code_names(read(target).model_dump())
