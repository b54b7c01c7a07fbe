"""`lntl models`: the models, their architectures, and the layers at which an architecture can be split."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lntl.models.backbone import Backbone


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show a model's settings, or the layers of LIBRARY/ARCHITECTURE, e.g. torchvision/resnet18."
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=1, help="Height and width of the images, for the shapes of the layers.")
    ] = 224,
) -> None:
    """List the models, or describe one: its settings, its architectures, and the layers with which f may end."""
    from rich.columns import Columns

    from lntl import plugins
    from lntl.cli.console import out, print_plugin, print_plugins, print_settings
    from lntl.errors import UserError
    from lntl.models import load_model
    from lntl.models.backbone import Backbone

    if name is None:
        print_plugins({name: load_model(name) for name in plugins.names("lntl.models")}, "model", "description")
        return
    library, slash, arch = name.partition("/")
    model = load_model(library)
    if slash:
        if not issubclass(model, Backbone):
            raise UserError(f"{library} has only one architecture; timm and torchvision have several")
        _print_split_points(model, arch, size)
        return
    print_plugin(name, model)
    print_settings(model)
    if issubclass(model, Backbone):
        out.print(Columns(model.architectures()), highlight=False)


def _print_split_points(model: "type[Backbone]", arch: str, size: int) -> None:
    """Print the layers with which f may end, with the shape of z and the share of the weights in f."""
    import torch
    from rich.table import Column, Table

    from lntl.cli.console import out
    from lntl.errors import UserError
    from lntl.models.splitting import split_points

    input_shape = (3, size, size)
    with torch.device("meta"):  # only shapes are needed, not weights
        network, x = model.create(arch, input_shape, outputs=1000), torch.zeros(1, *input_shape)
    title = f"{arch}, images of {size} x {size}"
    table = Table(Column("split", no_wrap=True), "layer", "z of an image", "weights in f", title=title)
    points = list(split_points(network, x))
    for point in points:
        table.add_row(point.name, point.kind, " x ".join(map(str, point.shape)), f"{point.share:.1%}")
    if not points:
        raise UserError(f"{arch} cannot be split for images of {size} x {size}; try another --size")
    out.print(table)
