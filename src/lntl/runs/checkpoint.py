"""Checkpoints: everything that the rest of a run depends on, written atomically, loaded without running code."""

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lntl import __version__
from lntl.errors import UserError
from lntl.runs.files import write_atomic

FORMAT = 2  # raise it when the meaning of the content changes


@dataclass(frozen=True)
class Checkpoint:
    """The resolved configuration, the trainer's state, and the metrics of every finished epoch.

    `data`: what the networks must know of their data to be used without them; None in files of older versions.
    """

    config: dict[str, Any]
    trainer: dict[str, Any]
    records: list[dict[str, Any]]
    data: dict[str, Any] | None = None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`; raises UserError, and keeps what was there, where that fails."""
    content = {"format": FORMAT, "lntl": __version__, **{k: getattr(checkpoint, k) for k in _FIELDS}}
    write_atomic(path, lambda file: torch.save(content, file))


_FIELDS = tuple(Checkpoint.__dataclass_fields__)
# What torch.load raises on a file that is truncated or none of its own (its unpickler trips over any byte in its way).
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
)


def load(path: Path) -> Checkpoint:
    """Return the checkpoint at `path` with its tensors on the CPU.

    Raises UserError where the file is missing, truncated, of another program, or of another format version.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; `ls {path.parent}` shows what there is")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}): truncated, or of another program; "
            f"use another one from {path.parent}"
        ) from error
    if not isinstance(content, dict) or not {"format", *_FIELDS} - {"data"} <= content.keys():
        raise UserError(f"{path}: a file of another program, not a checkpoint of lntl; train with `lntl train`")
    if content["format"] != FORMAT:
        theirs = content.get("lntl", "(another version)")
        raise UserError(
            f"{path}: checkpoint format {content['format']} (lntl {theirs}), but lntl {__version__} reads "
            f"format {FORMAT}, in which image_shape is named input_shape, bias_names bias_value_names and each_bias "
            f"biases; install lntl {theirs} to use it, or train again"
        )
    return Checkpoint(**{field: content[field] for field in _FIELDS if field in content})
