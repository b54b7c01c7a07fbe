"""Checkpoints: they are read as they were saved, no code in a file is run, and a bad file is one sentence."""

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
PLACE = {"phase": 1, "method": "erm", "epoch": 1, "total_epoch": 1, "step": 3}
CONTENT = Checkpoint(
    config={"training": {"phases": [{"method": "erm", "lr": 0.001}]}, "data": None},
    trainer=STATE,
    records=[Epoch.model_validate(PLACE | {"train/task": 0.1 + 0.2})],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved checkpoint."""
    checkpoint.save(tmp_path / "last.pth", CONTENT)
    return tmp_path / "last.pth"


def refusal(path: Path) -> str:
    """Return the sentence that says why the checkpoint is not loaded."""
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_round_trip(path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.config == CONTENT.config
    assert loaded.records == CONTENT.records
    assert torch.equal(loaded.trainer["networks"].pop("f.weight"), torch.arange(6.0).view(2, 3))
    assert loaded.trainer == STATE | {"networks": {}}
    assert torch.load(path, weights_only=True)["records"] == [PLACE | {"train/task": 0.1 + 0.2}]


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_malicious_object_is_refused_not_executed(path: Path) -> None:
    mark = path.with_name("executed")
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer": _Malicious(mark)}, path)
    assert "use another checkpoint" in refusal(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file does what the test believes
    assert mark.exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert f"use another checkpoint from {path.parent}" in refusal(path)


def test_every_short_file_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(60):
        path.write_bytes(content[:length])
        refusal(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, of files that are no pickle
def test_noise_is_refused(path: Path) -> None:
    noise = random.Random(0)
    for start in (b"", b"\x80\x02"):
        for _ in range(200):
            path.write_bytes(start + noise.randbytes(noise.randrange(60)))
            refusal(path)


@pytest.mark.parametrize(
    "content", [{}, [1], nn.Linear(2, 2).state_dict(), {"epoch": 3, "model_state_dict": {}}, nn.Linear(2, 2), None]
)
def test_a_file_of_another_program(path: Path, content: Any) -> None:
    torch.save(content, path)
    assert "from another program" in refusal(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", "kein Prüfpunkt".encode(), bytes(1000)])
def test_a_file_that_is_no_torch_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "from another program" in refusal(path)


def test_another_format_version(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"format": 99, "lntl": "8.7.6"}, path)
    assert "format 99" in refusal(path)
    assert "install lntl 8.7.6" in refusal(path)


def test_another_format_version_without_a_version_of_lntl(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["lntl"]
    torch.save(content | {"format": 99}, path)
    assert "format 99" in refusal(path)


@pytest.mark.parametrize("name", ["missing.pth", "no/such/folder/last.pth", "."])
def test_missing(tmp_path: Path, name: str) -> None:
    assert "no such checkpoint" in refusal(tmp_path / name)


def test_one_flipped_bit_is_noticed_wherever_it_is_used(path: Path) -> None:
    """One bit of each byte: the checkpoint is refused, or the loaded state equals the saved one."""
    content, bits = bytearray(path.read_bytes()), random.Random(0)
    harmless = 0
    for place in range(len(content)):
        bit = 1 << bits.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        try:
            loaded = checkpoint.load(path)
        except UserError:
            continue
        harmless += 1
        assert torch.equal(loaded.trainer["networks"]["f.weight"], STATE["networks"]["f.weight"])
        assert (loaded.config, loaded.records) == (CONTENT.config, CONTENT.records)
    assert 0 < harmless < len(content)  # such as dates in the archive


def rewritten(path: Path, compression: int) -> None:
    """Write the archive of a checkpoint again, compressed by a method."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)


def test_compressed_entries_are_refused_before_they_are_unpacked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(path, zipfile.ZIP_STORED)
    checkpoint.load(path)
    rewritten(path, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    assert "is compressed" in refusal(path)


def shared(times: int) -> list[Any]:
    """Return 2**times values in a few bytes."""
    value: list[Any] = []
    for _ in range(times):
        value = [value, value]
    return value


def nested(times: int) -> list[Any]:
    """Return a list in a list in a list."""
    value: list[Any] = []
    for _ in range(times):
        value = [value]
    return value


def endless() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (shared(60), "repeats values too often"),
        (nested(150), "nested too deep"),
        (endless(), "nested too deep"),
        (torch.zeros(1).expand(10**12), "repeats values too often"),
        ({"f.weight": torch.zeros(1).expand(10**12)}, "repeats values too often"),
        ([torch.zeros(1000, 1000)] * 100, "repeats values too often"),
        (torch.zeros(3, 3).to_sparse(), "sparse"),
        (torch.zeros(10**6, device="meta"), "without values"),
    ],
    ids=["shared", "nested", "endless", "expanded", "expanded weight", "repeated", "sparse", "meta"],
)
@pytest.mark.parametrize("part", ["config", "networks"])
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")  # torch's, before it hands the tensor over
def test_a_small_file_of_many_values_is_refused_at_once(path: Path, part: str, bomb: Any, reason: str) -> None:
    content = torch.load(path, weights_only=True)
    (content if part == "config" else content["trainer"])[part] = bomb
    torch.save(content, path)
    assert reason in refusal(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["networks", "average"])
def test_weights_that_are_not_finite_are_not_saved(path: Path, part: str, value: float) -> None:
    before = path.read_bytes()
    wrong = replace(CONTENT, trainer=STATE | {part: {"g.bias": torch.tensor([0.0, value])}})
    with pytest.raises(NotFiniteError, match=r"last\.pth: not saved, because the weight g\.bias is not finite"):
        checkpoint.save(path, wrong)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"networks": {"f.weight": torch.tensor(math.nan)}}, {"pending": [torch.tensor(math.inf)]}]
)
def test_weights_that_are_not_finite_are_not_loaded(path: Path, change: dict[str, Any]) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer": content["trainer"] | change}, path)
    assert "is not finite: training diverged; use another checkpoint from" in refusal(path)


DAMAGED: list[tuple[tuple[str, ...], Any]] = [
    (("trainer",), 3),
    (("trainer", "phase"), -1),
    (("trainer", "phase"), "x"),
    (("trainer", "networks"), [1]),
    (("trainer", "networks"), {"f.weight": 3}),
    (("trainer", "average"), 0.5),
    (("trainer", "optimizers"), {"f": 3}),
    (("trainer", "pending"), None),
    (("records",), {"a": 1}),
    (("records",), [PLACE | {"val/accuracy": "high"}]),
    (("data",), {"spec": 3}),
    (("data",), []),
]


@pytest.mark.parametrize(("keys", "value"), DAMAGED, ids=str)
def test_a_damaged_tree_is_refused(path: Path, keys: tuple[str, ...], value: Any) -> None:
    content = torch.load(path, weights_only=True)
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    torch.save(content, path)
    assert f"last.pth: is damaged ({'.'.join(keys)}" in refusal(path)
