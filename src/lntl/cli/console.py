"""Output of the command line: text, log, help on plug-ins, and progress (plain lines if stderr is not a terminal)."""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from lntl.text import escape_controls

if TYPE_CHECKING:  # these modules take seconds to import
    from lntl.methods.base import Method
    from lntl.training.trainer import Step, Trainer
    from lntl.types import EpochRecord, Networks

    Plugin = type[Method] | type[Networks]


class _Console(Console):
    """A console that escapes control characters, so that names from files cannot control the terminal."""

    def render_str(self, text: str, **arguments: Any) -> Text:
        """Return the text of a table cell or a line with control characters escaped."""
        return super().render_str(escape_controls(text), **arguments)


err = _Console(stderr=True)
out = _Console()
log = logging.getLogger("lntl")

_LINE_INTERVAL = 15  # seconds between two progress lines if stderr is not a terminal


def echo(text: object, style: str = "") -> None:
    """Print a text without wrapping or markup; control characters and invalid bytes are escaped."""
    escaped_text = escape_controls(str(text).encode(errors="backslashreplace").decode())
    out.print(Text(escaped_text, style), soft_wrap=True)


def echo_paths(paths: Iterable[Path]) -> None:
    """Print the paths of written files, one per line."""
    for path in paths:
        echo(f"  {path}")


def log_to_console(show: bool = True) -> None:
    """Show the log on stderr, with rich in a terminal, otherwise as plain lines; if not `show`, discard it."""
    handler: logging.Handler
    if not show:
        handler = logging.NullHandler()
    elif err.is_terminal:
        handler = RichHandler(console=err, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for old_handler in log.handlers:
        old_handler.close()  # of an earlier run in the same process
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[float], None]]:
    """Show a progress bar in a terminal; yield the function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


def show_progress(events: "Iterable[Step | EpochRecord]", trainer: "Trainer", batch_size: int) -> None:
    """Iterate over the events, showing phase, epoch, step, images per second of the phase, losses and the time left."""
    from lntl.training.trainer import Step

    total = trainer.total_epochs * len(trainer.loader)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[losses]}"))
    start_time, first_step, line_time, phase = monotonic(), trainer.total_steps, monotonic(), trainer.phase
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, disable=not err.is_terminal
    ) as bar:
        task = bar.add_task("training", total=total, completed=first_step, losses="")
        for event in events:
            if not isinstance(event, Step):
                continue
            # A method that trains nothing has one step per epoch, which counts as len(loader) steps.
            completed = trainer.total_steps + event.index * (len(trainer.loader) // event.total - 1)
            if trainer.phase != phase:  # the speed is measured per phase
                start_time, first_step, phase = monotonic(), completed, trainer.phase
            settings = trainer.settings
            description = f"{settings.method} epoch {trainer.epoch_index + 1}/{settings.epochs}"
            bar.update(task, completed=completed, description=description)
            num_steps = completed - first_step
            if event.terms is None or not num_steps:
                continue
            speed = num_steps * batch_size / (monotonic() - start_time)
            losses = " ".join(f"{k}={v:.3f}" for k, v in event.terms.items() if not k.startswith("lr_"))
            bar.update(task, losses=f"{speed:.0f} img/s {losses}")
            if not err.is_terminal and monotonic() - line_time > _LINE_INTERVAL:
                line_time = monotonic()
                time_left = timedelta(seconds=round((total - completed) * batch_size / speed))
                log.info(
                    "%s step %d/%d %.0f img/s %s, %s left",
                    description,
                    event.index,
                    event.total,
                    speed,
                    losses,
                    time_left,
                )


def print_plugins(plugins: "Mapping[str, Plugin]", *columns: str) -> None:
    """Print a table of plug-ins: the name, and the first line of the module."""
    table = Table(*columns)
    for name, plugin in plugins.items():
        table.add_row(name, _summary(plugin))
    out.print(table)


def print_plugin(name: str, plugin: "Plugin") -> None:
    """Print the first line of a plug-in's module and the docstring of its class."""
    out.print(f"[bold]{escape(name)}[/bold]: {escape(_summary(plugin))}\n\n{escape(inspect.getdoc(plugin) or '')}\n")


def print_settings(plugin: "Plugin") -> None:
    """Print a table of a plug-in's settings, if it has any."""
    if plugin.Config.model_fields:
        table = Table("setting", "default", "meaning")
        for key, field in plugin.Config.model_fields.items():
            table.add_row(key, "(required)" if field.is_required() else str(field.default), field.description)
        out.print(table)


def _summary(plugin: "Plugin") -> str:
    return (inspect.getdoc(inspect.getmodule(plugin)) or "").partition("\n")[0]
