"""What the command line tells about methods, models, data and the schema of configurations."""

import inspect
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.columns import Columns
from rich.markup import escape
from rich.table import Column, Table

from lntl import config as configuration
from lntl import plugins
from lntl.cli.console import out, tell
from lntl.config import ready as ready_configs
from lntl.data import cache
from lntl.data.rows import SPLITS
from lntl.errors import UserError
from lntl.makers import tables
from lntl.makers.tables import Made
from lntl.models.backbone import Backbone
from lntl.models.splitting import split_points
from lntl.runs.files import write_atomic
from lntl.types import IGNORE


def methods(name: str | None) -> None:
    """Print the methods, or one method's equation and settings."""
    if name is not None:
        _method(name)
        return
    table = Table("method", "what it does")
    for each in plugins.names("lntl.methods"):
        table.add_row(each, _summary(plugins.load("lntl.methods", each)))
    out.print(table)


def _summary(plugin: Any) -> str:
    return (inspect.getdoc(inspect.getmodule(plugin)) or "").partition("\n")[0]


def _method(name: str) -> None:
    method = plugins.load("lntl.methods", name)
    out.print(f"[bold]{escape(name)}[/bold]: {escape(_summary(method))}\n\n{escape(inspect.getdoc(method) or '')}\n")
    out.print(f"trains {', '.join(method.trains)}; {'sees' if method.sees_bias else 'does not see'} the bias label")
    for key, value in method.needs.items():
        out.print(f"needs model.{key}: {value}")
    _settings(method)


def _settings(plugin: Any) -> None:
    """Print a table of a plug-in's settings, if it has any."""
    if plugin.Config.model_fields:
        table = Table("setting", "default", "meaning")
        for key, field in plugin.Config.model_fields.items():
            table.add_row(key, "(required)" if field.is_required() else str(field.default), field.description)
        out.print(table)


def models(name: str | None, size: int) -> None:
    """Print the models, one model's settings and architectures, or the layers at which one can be split."""
    if name is None:
        table = Table("model", "what it is")
        for each in plugins.names("lntl.models"):
            table.add_row(each, _summary(plugins.load("lntl.models", each)))
        out.print(table)
        return
    library, slash, arch = name.partition("/")
    model = plugins.load("lntl.models", library)
    if slash and not issubclass(model, Backbone):
        raise UserError(f"{library} is one architecture; those with more: timm, torchvision")
    if slash:
        _split_points(model, arch, size)
        return
    out.print(f"[bold]{escape(name)}[/bold]: {escape(_summary(model))}\n\n{escape(inspect.getdoc(model) or '')}\n")
    _settings(model)
    if issubclass(model, Backbone):
        out.print(Columns(model.architectures()), highlight=False)


def _split_points(model: type[Backbone], arch: str, size: int) -> None:
    input_shape = (3, size, size)
    with torch.device("meta"):  # shapes alone: neither memory nor time for weights
        network, x = model.create(arch, input_shape, outputs=1000), torch.zeros(1, *input_shape)
    table = Table(
        Column("split", no_wrap=True),
        "layer",
        "z of an image",
        "weights in f",
        title=f"{arch}, images of {size} x {size}",
    )
    points = list(split_points(network, x))
    for point in points:
        table.add_row(point.name, point.kind, " x ".join(map(str, point.shape)), f"{point.share:.1%}")
    if not points:
        raise UserError(f"{arch} cannot be split for images of {size} x {size}; try another --size")
    out.print(table)


def schema() -> None:
    """Print the JSON Schema of the configuration."""
    print(json.dumps(configuration.json_schema(), indent=2))


def _load_data(config_name: str, overrides: list[str]) -> Any:
    config = configuration.read_for_data(ready_configs.find(config_name), overrides)
    return plugins.load("lntl.data", config.data.name)(config.data)


def data(config_name: str, overrides: list[str]) -> None:
    """Print where the data come from, their sizes, and how well a class's most frequent bias value would guess."""
    dataset = _load_data(config_name, overrides)
    tell(f"{dataset.source}\nval: {dataset.val_note}")
    table = Table("split", "images", "classes", "groups with images", "label guessed from the bias")
    for name, split in dataset.splits.items():
        known = split.group[split.group != IGNORE]
        cells = torch.bincount(known, minlength=dataset.spec.num_groups).view(dataset.spec.num_classes, -1)
        guess = cells.amax(dim=0).sum() / cells.sum()  # the best that a rule "bias value -> class" can do
        filled = f"{int((cells > 0).sum())} of {cells.numel()}"
        table.add_row(name, str(len(split)), str(dataset.spec.num_classes), filled, f"{float(guess):.1%}")
    out.print(table)


def made_table(target: Path, source: Path, made: Made, config_name: str) -> None:
    """Write the table of a download; print how many images of each label and bias each split has, and what is next."""
    tables.write(target, made)
    columns = made.columns
    count = Counter(zip(columns["split"], columns[made.label], columns[made.bias], strict=True))
    shown = Table("split", made.label, made.bias, Column("images", justify="right"))
    for cell in sorted(count, key=lambda cell: (SPLITS.index(cell[0]), cell[1:])):
        shown.add_row(*cell, str(count[cell]))
    out.print(shown)
    for note in made.notes:
        tell(note)
    tell(f"{target}: {len(columns['split'])} images")
    tell(f"Next: lntl train {config_name} data.path={target} data.root={source}")


def make_data(target: Path, config_name: str, overrides: list[str]) -> None:
    """Write every split as {split}_image (n, H, W, C) uint8, {split}_label and {split}_color to an .npz file."""
    if target.exists():
        raise UserError(f"{target} exists already; move it away first")
    arrays = {}
    for name, split in _load_data(config_name, overrides).splits.items():
        if not hasattr(split, "color"):
            raise UserError(
                f"{config_name}: its data are not Colored MNIST; name a configuration of data: colored_mnist"
            )
        arrays[f"{name}_image"] = split.pixels(torch.arange(len(split))).permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_label"], arrays[f"{name}_color"] = split.y.numpy(), split.color.numpy()
    write_atomic(target, lambda file: np.savez_compressed(file, **arrays))
    tell(f"{target}: {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


def clear_cache(folder: Path) -> None:
    """Empty a cache of decoded images, and tell how much that was."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name the one that data.cache_dir names")
    files, size = cache.clear(folder)
    tell(f"{folder}: {files} decoded images removed, {size / 2**20:.1f} MiB")
