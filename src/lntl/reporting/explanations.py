"""The folder of `lntl explain`: a figure of each example, a page with all figures, and the attributions as arrays."""

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
from lntl.evaluation.saliency import ExplainedExample, heat_maps
from lntl.reporting.pages import render
from lntl.runs.files import make_write_error, write_atomic, write_text


@dataclass(frozen=True)
class PageEntry:
    """An example on the page: its name, the file of its figure, and the predictions in words."""

    name: str
    file: str
    text: str


def check_new_folder(path: Path) -> None:
    """Raise UserError if the folder exists already, or if its parent does not exist."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already, and its files are never replaced; name a new folder with --out")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it, or name another folder with --out")


def write_explanations(
    examples: Iterable[ExplainedExample],
    out: Path,
    run: str,
    count: int,
    steps: int,
    progress: Callable[[int], None] = lambda step: None,
) -> list[Path]:
    """Write index.html, a PNG file of each example, and attributions.npz into a new folder, all files or none.

    Args:
        examples: The examples, at least one.
        out: The folder.
        run: The name of the run in the page.
        count: Number of examples in the user's input; `examples` may be only some of them.
        steps: Number of points of the integral.
        progress: Called with 1 after each example.

    Returns:
        The page and the arrays.

    Raises:
        UserError: If the folder exists or cannot be written, or if `examples` raises it.
    """
    check_new_folder(out)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.mkdir()
        entries, arrays, has_images = [], dict[str, list[np.ndarray]](), False
        for number, example in enumerate(examples, 1):
            file = f"{number:04}_{_make_safe_stem(example.name)}.png"
            buffer = BytesIO()
            _draw_figure(example).savefig(buffer, format="png", dpi=140)
            write_atomic(temporary / file, lambda target, buffer=buffer: target.write(buffer.getvalue()))  # type: ignore[misc]
            has_images = example.picture is not None
            entries.append(PageEntry(example.name, file, _describe_predictions(example)))
            for name, values in example.values.items():
                arrays.setdefault(name, []).append(values.numpy())
            progress(1)
        stacked: dict[str, Any] = {_ARRAYS.get(name, name): np.stack(values) for name, values in arrays.items()}
        names = np.array([entry.name for entry in entries])
        write_atomic(temporary / "attributions.npz", lambda file: np.savez_compressed(file, name=names, **stacked))
        page = render(
            "explain.html", run=run, entries=entries, has_images=has_images, count=count, steps=steps, lntl=__version__
        )
        write_text(temporary / "index.html", page)
        temporary.rename(out)
    except OSError as error:
        raise make_write_error(out, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary)
    return [out / "index.html", out / "attributions.npz"]


_ARRAYS = {"this run": "run", "plain training (ERM)": "erm"}  # names in attributions.npz


def _make_safe_stem(name: str) -> str:
    """Return the stem of a file name with only letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(os.fsdecode(name)).stem)[:60]


def _describe_predictions(example: ExplainedExample) -> str:
    return "; ".join(f"{name}: {label}, {share:.1%}" for name, (label, share) in example.predictions.items())


def _draw_figure(example: ExplainedExample) -> Figure:
    if example.picture is None:
        return figures.saliency_bars(
            {name: values.numpy() for name, values in example.values.items()}, "attribution, in units of the log-odds"
        )
    heat = {}
    for name, values in example.values.items():
        label, share = example.predictions[name]
        heat[f"{name}: {label} {share:.0%}"] = heat_maps(values[None])[0].numpy()
    return figures.saliency_row(example.picture.numpy(), heat)
