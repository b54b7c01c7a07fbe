"""Text about plug-ins, from their docstrings and settings: what `lntl methods` and `lntl models` print."""

import inspect
from typing import Any

from rich.markup import escape
from rich.table import Table

from lntl import plugins
from lntl.cli.console import out


def print_plugins(folder: str, *columns: str) -> None:
    """Print the names of a folder's plug-ins, each with the first line of its module."""
    table = Table(*columns)
    for name in plugins.names(folder):
        table.add_row(name, _summary(plugins.load(folder, name, object)))
    out.print(table)


def print_docstring(name: str, plugin: Any) -> None:
    """Print the first line of a plug-in's module and the docstring of its class."""
    out.print(f"[bold]{escape(name)}[/bold]: {escape(_summary(plugin))}\n\n{escape(inspect.getdoc(plugin) or '')}\n")


def print_settings(plugin: Any) -> None:
    """Print a table of a plug-in's settings, if it has any."""
    if plugin.Config.model_fields:
        table = Table("setting", "default", "meaning")
        for key, field in plugin.Config.model_fields.items():
            table.add_row(key, "(required)" if field.is_required() else str(field.default), field.description)
        out.print(table)


def _summary(plugin: Any) -> str:
    return (inspect.getdoc(inspect.getmodule(plugin)) or "").partition("\n")[0]
