"""`lntl methods`: the training methods."""

from typing import Annotated

import typer


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's equation and settings.")] = None,
) -> None:
    """List the training methods, or describe one."""
    from lntl import plugins
    from lntl.cli.console import out, print_plugin, print_plugins, print_settings
    from lntl.methods import load_method

    if name is None:
        print_plugins({name: load_method(name) for name in plugins.names("lntl.methods")}, "method", "description")
        return
    method = load_method(name)
    print_plugin(name, method)
    trains = (
        f"trains {', '.join(method.trains)}"
        if method.trains
        else f"fits {', '.join(method.fits)} before the first step"
    )
    out.print(f"{trains}; {'uses' if method.sees_bias else 'does not use'} bias labels")
    for key, value in method.required_model_settings.items():
        out.print(f"needs model.{key}: {value}")
    print_settings(method)
