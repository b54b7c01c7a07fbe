"""The folder of `lntl explain`: a picture of each example, a page of them all, and the attributions as arrays."""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lntl import __version__, figures
from lntl.errors import UserError
from lntl.evaluation.saliency import Explained, heat_maps
from lntl.reporting.pages import render
from lntl.runs.files import cannot_write, write_atomic, write_text


@dataclass(frozen=True)
class Shown:
    """An example on the page: its name, its picture's file, and the predictions in words."""

    name: str
    file: str
    text: str


def check_new_folder(path: Path) -> None:
    """Raise UserError if a folder cannot be created: it exists, or its parent does not."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already, and nothing in it is replaced; name a new folder with --out")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another folder with --out")


def write_explanations(
    examples: Iterable[Explained],
    out: Path,
    run: str,
    given: int,
    steps: int,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Write index.html, a PNG file of each example, and attributions.npz into a new folder, whole or not at all.

    Args:
        examples: The examples, at least one.
        out: The folder.
        run: The run, as the user names it.
        given: How many examples the user gave.
        steps: Points of the integral.
        progress: Called with 1 after each example.

    Returns:
        The page and the arrays.

    Raises:
        UserError: If the folder exists or cannot be written, or as `examples` raises.
    """
    check_new_folder(out)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.mkdir()
        shown, arrays, pictures = [], dict[str, list[np.ndarray]](), False
        for number, example in enumerate(examples, 1):
            file = f"{number:04}_{_plain(example.name)}.png"
            buffer = BytesIO()
            _figure(example).savefig(buffer, format="png", dpi=140)
            write_atomic(temporary / file, lambda target, buffer=buffer: target.write(buffer.getvalue()))  # type: ignore[misc]
            pictures = example.picture is not None
            shown.append(Shown(example.name, file, _words(example)))
            for name, values in example.values.items():
                arrays.setdefault(name, []).append(values.numpy())
            progress(1)
        stacked: dict[str, Any] = {_ARRAYS.get(name, name): np.stack(values) for name, values in arrays.items()}
        names = np.array([example.name for example in shown])
        write_atomic(temporary / "attributions.npz", lambda file: np.savez_compressed(file, name=names, **stacked))
        page = render(
            "explain.html", run=run, shown=shown, pictures=pictures, given=given, steps=steps, lntl=__version__
        )
        write_text(temporary / "index.html", page)
        temporary.rename(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)
    return [out / "index.html", out / "attributions.npz"]


_ARRAYS = {"this run": "run", "plain training (ERM)": "erm"}  # names in attributions.npz


def _plain(name: str) -> str:
    """Return the stem of a file's name as letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(os.fsdecode(name)).stem)[:60]


def _words(example: Explained) -> str:
    return "; ".join(f"{name}: {label}, {share:.1%}" for name, (label, share) in example.predictions.items())


def _figure(example: Explained) -> Figure:
    if example.picture is None:
        return figures.saliency_bars(
            {name: values.numpy() for name, values in example.values.items()}, "attribution, in units of the log-odds"
        )
    heat = {}
    for name, values in example.values.items():
        label, share = example.predictions[name]
        heat[f"{name}: {label} {share:.0%}"] = heat_maps(values[None])[0].numpy()
    return figures.saliency_row(example.picture.numpy(), heat)
