"""Checkpoints: everything that a resumed run needs, written atomically and loaded without running code."""

import copy
import logging
import pickle
import struct
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from lntl import __version__
from lntl.errors import UserError
from lntl.runs.files import ZIP_ERRORS, describe_fault, write_atomic
from lntl.runs.formats import Epoch, LearnedData
from lntl.types import TrainerState

log = logging.getLogger("lntl")
FORMAT = 2  # version of the format; increase it when the meaning of the content changes
MAX_DEPTH = 100  # nesting depth of containers
MAX_EXPANSION = 16  # largest ratio of the bytes in tensors to the bytes of the file


class NotFiniteError(UserError):
    """The weights or the outputs of the networks are infinite or NaN: training diverged."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a training step.

    Args:
        config: The resolved configuration as plain values, not yet validated.
        trainer: `Trainer.state_dict()`.
        records: The metrics of each finished epoch.
        data: Description of the training data, for prediction; None in files of older versions.
    """

    config: object
    trainer: TrainerState
    records: list[Epoch]
    data: LearnedData | None = None


class _Content(BaseModel, arbitrary_types_allowed=True):
    """The content of a checkpoint file."""

    config: object
    trainer: TrainerState
    records: list[Epoch]
    data: LearnedData | None = None


# Errors of torch.load for a file that is damaged or from another program; the unpickler can fail at any byte.
_UNPICKLING_ERRORS = (RuntimeError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, struct.error)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to `path`; if that fails, an older file at `path` stays unchanged.

    Raises:
        UserError: If the file cannot be written.
        NotFiniteError: If the weights are not finite.
    """
    if tensor_name := find_non_finite(checkpoint.trainer):
        raise NotFiniteError(
            f"{path}: not saved, because {tensor_name} is not finite: training diverged; lower the learning rate or "
            "set training.clip_grad_norm"
        )
    content = {
        "format": FORMAT,
        "lntl": __version__,
        "config": checkpoint.config,
        "trainer": checkpoint.trainer,
        "records": [epoch.model_dump(exclude_unset=True) for epoch in checkpoint.records],
        "data": None if checkpoint.data is None else checkpoint.data.model_dump(exclude_unset=True),
    }
    write_atomic(path, lambda file: torch.save(content, file))


class BackgroundSaver:
    """Saves checkpoints in a thread, so that training waits only until the state is copied, not for the disk.

    Use it in a `with` statement; at its end, the statement waits for the last write.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._write: Future[None] | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the current write; log its error instead of raising it, because another exception may be raised."""
        self._thread.shutdown()
        if self._write is not None and (error := self._write.exception()) is not None:
            log.warning("%s", error)

    def is_idle(self) -> bool:
        """Return whether no write is running; raises the error of `save` if the last write failed."""
        if self._write is not None and self._write.done():
            self.wait()
        return self._write is None

    def wait(self) -> None:
        """Wait for the current write; raises the error of `save` if it failed."""
        write, self._write = self._write, None
        if write is not None:
            write.result()

    def save(self, path: Path, checkpoint: Checkpoint) -> None:
        """Copy the checkpoint, and start to write the copy to `path` with the function `save`.

        Raises:
            UserError: If the previous write failed.
        """
        self.wait()
        state = checkpoint.trainer
        memo = {id(tensor): tensor.detach().to("cpu", copy=True) for tensor in _iterate_tensors(state)}
        snapshot = replace(checkpoint, trainer=copy.deepcopy(state, memo), records=list(checkpoint.records))
        self._write = self._thread.submit(save, path, snapshot)


def _iterate_tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _iterate_tensors(part)


def load(path: Path) -> Checkpoint:
    """Return the checkpoint at `path` with its tensors on the CPU.

    Raises:
        UserError: If the file is missing, damaged, from another program, or in another format version.
        NotFiniteError: If the weights are not finite.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a checkpoint, such as {path}/checkpoints/last.pth")
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint; `ls {path.parent}` lists the files there")
    try:
        check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_extent(content, path.stat().st_size)
    except (*ZIP_ERRORS, *_UNPICKLING_ERRORS, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(
            f"{path}: not a readable checkpoint ({reason}): damaged, or from another program; "
            f"use another checkpoint from {path.parent}"
        ) from error
    if not isinstance(content, dict) or not {"format", "config", "trainer", "records"} <= content.keys():
        raise UserError(f"{path}: a file from another program, not a checkpoint of lntl; train with `lntl train`")
    file_format = content["format"]
    if not isinstance(file_format, int) or file_format != FORMAT:
        version = str(content.get("lntl", "(another version)"))[:20]
        raise UserError(
            f"{path}: checkpoint format {str(file_format)[:20]} (lntl {version}), but lntl {__version__} reads "
            f"format {FORMAT}, where input_shape replaces image_shape, bias_value_names replaces bias_names "
            f"and biases replaces each_bias; install lntl {version} to use it, or train again"
        )
    try:
        validated = _Content.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{path}: is damaged ({describe_fault(error)}); use another checkpoint from {path.parent}, or train again"
        ) from error
    if tensor_name := find_non_finite(content["trainer"]):
        raise NotFiniteError(
            f"{path}: {tensor_name} is not finite: training diverged; use another checkpoint from {path.parent}"
        )
    return Checkpoint(validated.config, content["trainer"], validated.records, validated.data)


def check_archive(path: Path) -> None:
    """Raise BadZipFile if a zip file has compressed or overlapping entries, or an entry with a wrong checksum.

    torch does not verify checksums. It stores weights uncompressed, and a compressed entry could fill the memory.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise zipfile.BadZipFile(f"its entry {entry.filename[:40]} is compressed")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its entries overlap")
        if (entry_name := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of its entry {entry_name[:40]} is wrong")


def _check_extent(content: object, size: int) -> None:
    """Raise ValueError if `content` has more values than a file of `size` bytes can contain without repeating them.

    A list may contain the same list many times, and a tensor may repeat one number. Such content is small in the file
    and huge in memory.
    """
    stack: list[tuple[object, int]] = [(content, 0)]
    values = tensor_bytes = 0
    while stack:
        value, depth = stack.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise ValueError("it contains a sparse or quantised tensor, or a tensor without values")
            tensor_bytes += value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple | set):
            parts = [*value, *value.values()] if isinstance(value, dict) else [*value]
            stack += [(part, depth + 1) for part in parts]
            values += len(parts)
        if values > size or tensor_bytes > MAX_EXPANSION * size or depth > MAX_DEPTH:
            raise ValueError("it repeats values too often or is nested too deep")


def find_non_finite(state: TrainerState) -> str | None:
    """Return the first part of a trainer's state that is infinite or NaN: a weight, or a loss that is not logged yet.

    Return None if all are finite. The state of methods and optimisers may contain infinities.
    """
    for name, value in {**state["networks"], **(state["average"] or {})}.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return f"the weight {name}"
    if any(not bool(row.isfinite().all()) for row in state["pending"]):
        return "the loss"
    return None
