"""Checkpoints are read as they were saved; no code in a file runs; a damaged file gives one sentence."""

import math
import os
import random
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lntl.errors import UserError
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint, NotFiniteError
from lntl.runs.formats import Epoch

STATE: dict[str, Any] = {
    "phase": 1,
    "epoch": 1,
    "step": 0,
    "networks": {"f.weight": torch.arange(6.0).view(2, 3)},
    "method": {},
    "optimizers": {"f": {"state": {}, "param_groups": []}},
    "average": None,
    "terms": ["task"],
    "pending": [],
    "sums": None,
    "seconds": 0.5,
}
POSITION = {"phase": 1, "method": "erm", "epoch": 1, "total_epoch": 1, "step": 3}
CONTENT = Checkpoint(
    config={"training": {"phases": [{"method": "erm", "lr": 0.001}]}, "data": None},
    trainer=STATE,
    records=[Epoch.model_validate(POSITION | {"train/task": 0.1 + 0.2})],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved checkpoint."""
    checkpoint.save(tmp_path / "last.pth", CONTENT)
    return tmp_path / "last.pth"


def load_and_get_error(path: Path) -> str:
    """Load a checkpoint that must be refused; return the error message."""
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_saved_checkpoint_is_read_unchanged(path: Path) -> None:
    content = checkpoint.load(path)
    assert content.config == CONTENT.config
    assert content.records == CONTENT.records
    assert torch.equal(content.trainer["networks"].pop("f.weight"), torch.arange(6.0).view(2, 3))
    assert content.trainer == STATE | {"networks": {}}
    assert torch.load(path, weights_only=True)["records"] == [POSITION | {"train/task": 0.1 + 0.2}]


class FolderMaker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_malicious_object_is_refused_and_not_executed(path: Path) -> None:
    folder = path.with_name("executed")
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer": FolderMaker(folder)}, path)
    assert "use another checkpoint" in load_and_get_error(path)
    assert not folder.exists()
    torch.load(path, weights_only=False)  # this proves that the file can run code
    assert folder.exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert f"use another checkpoint from {path.parent}" in load_and_get_error(path)


def test_every_short_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(60):
        path.write_bytes(content[:length])
        load_and_get_error(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch warns of files that are no pickle
def test_random_bytes_are_refused(path: Path) -> None:
    rng = random.Random(0)
    for start in (b"", b"\x80\x02"):
        for _ in range(200):
            path.write_bytes(start + rng.randbytes(rng.randrange(60)))
            load_and_get_error(path)


@pytest.mark.parametrize(
    "content", [{}, [1], nn.Linear(2, 2).state_dict(), {"epoch": 3, "model_state_dict": {}}, nn.Linear(2, 2), None]
)
def test_a_file_of_another_program_is_refused(path: Path, content: Any) -> None:
    torch.save(content, path)
    assert "from another program" in load_and_get_error(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", "kein Prüfpunkt".encode(), bytes(1000)])
def test_a_file_that_is_no_torch_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "from another program" in load_and_get_error(path)


def test_another_format_version_is_refused_with_the_version_to_install(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"format": 99, "lntl": "8.7.6"}, path)
    assert "format 99" in load_and_get_error(path)
    assert "install lntl 8.7.6" in load_and_get_error(path)


def test_another_format_version_without_a_version_of_lntl_is_refused(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["lntl"]
    torch.save(content | {"format": 99}, path)
    assert "format 99" in load_and_get_error(path)


@pytest.mark.parametrize("name", ["missing.pth", "no/such/folder/last.pth"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "no such checkpoint" in load_and_get_error(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder; name a checkpoint" in load_and_get_error(tmp_path)


def test_a_flipped_bit_is_detected_or_harmless(path: Path) -> None:
    """For one bit of each byte, the checkpoint is refused, or the loaded state equals the saved state."""
    content, rng = bytearray(path.read_bytes()), random.Random(0)
    num_harmless = 0
    for position in range(len(content)):
        bit = 1 << rng.randrange(8)
        content[position] ^= bit
        path.write_bytes(content)
        content[position] ^= bit
        try:
            loaded_content = checkpoint.load(path)
        except UserError:
            continue
        num_harmless += 1
        assert torch.equal(loaded_content.trainer["networks"]["f.weight"], STATE["networks"]["f.weight"])
        assert (loaded_content.config, loaded_content.records) == (CONTENT.config, CONTENT.records)
    assert 0 < num_harmless < len(content)  # harmless bits are, for example, dates in the archive


def recompress(path: Path, compression: int) -> None:
    """Rewrite the archive of a checkpoint with a compression method."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)


def test_compressed_entries_are_refused_before_they_are_unpacked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recompress(path, zipfile.ZIP_STORED)
    checkpoint.load(path)
    recompress(path, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the archive was unpacked"))
    assert "is compressed" in load_and_get_error(path)


def make_shared_lists(times: int) -> list[Any]:
    """Return 2**times values in a few bytes."""
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


def make_nested_list(times: int) -> list[Any]:
    """Return an empty list that is nested `times` times."""
    value: list[Any] = []
    for _ in range(times):
        value = [value]
    return value


def make_cyclic_list() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (make_shared_lists(60), "repeats values too often"),
        (make_nested_list(150), "nested too deep"),
        (make_cyclic_list(), "nested too deep"),
        (torch.zeros(1).expand(10**12), "repeats values too often"),
        ({"f.weight": torch.zeros(1).expand(10**12)}, "repeats values too often"),
        ([torch.zeros(1000, 1000)] * 100, "repeats values too often"),
        (torch.zeros(3, 3).to_sparse(), "sparse"),
        (torch.zeros(10**6, device="meta"), "without values"),
    ],
    ids=["shared lists", "nested list", "cyclic list", "expanded", "expanded weight", "repeated", "sparse", "meta"],
)
@pytest.mark.parametrize("part", ["config", "networks"])
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")  # torch warns while it loads the tensor
def test_a_small_file_that_expands_to_many_values_is_refused_at_once(
    path: Path, part: str, value: Any, reason: str
) -> None:
    content = torch.load(path, weights_only=True)
    (content if part == "config" else content["trainer"])[part] = value
    torch.save(content, path)
    assert reason in load_and_get_error(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["networks", "average"])
def test_weights_that_are_not_finite_are_not_saved(path: Path, part: str, value: float) -> None:
    saved_bytes = path.read_bytes()
    content = replace(CONTENT, trainer=STATE | {part: {"g.bias": torch.tensor([0.0, value])}})
    with pytest.raises(NotFiniteError, match=r"last\.pth: not saved, because the weight g\.bias is not finite"):
        checkpoint.save(path, content)
    assert path.read_bytes() == saved_bytes


@pytest.mark.parametrize(
    "change", [{"networks": {"f.weight": torch.tensor(math.nan)}}, {"pending": [torch.tensor(math.inf)]}]
)
def test_weights_that_are_not_finite_are_not_loaded(path: Path, change: dict[str, Any]) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer": content["trainer"] | change}, path)
    assert "is not finite: training diverged; use another checkpoint from" in load_and_get_error(path)


DAMAGED_VALUES: list[tuple[tuple[str, ...], Any]] = [
    (("trainer",), 3),
    (("trainer", "phase"), -1),
    (("trainer", "phase"), "x"),
    (("trainer", "networks"), [1]),
    (("trainer", "networks"), {"f.weight": 3}),
    (("trainer", "average"), 0.5),
    (("trainer", "optimizers"), {"f": 3}),
    (("trainer", "pending"), None),
    (("records",), {"a": 1}),
    (("records",), [POSITION | {"val/accuracy": "high"}]),
    (("data",), {"spec": 3}),
    (("data",), []),
]


@pytest.mark.parametrize(("keys", "value"), DAMAGED_VALUES, ids=str)
def test_a_checkpoint_with_a_damaged_value_is_refused(path: Path, keys: tuple[str, ...], value: Any) -> None:
    content = torch.load(path, weights_only=True)
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    torch.save(content, path)
    assert f"last.pth: is damaged ({'.'.join(keys)}" in load_and_get_error(path)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"^{tmp_path}: is a folder; name a checkpoint, such as {tmp_path}/checkpoints/last"
    ):
        checkpoint.load(tmp_path)
