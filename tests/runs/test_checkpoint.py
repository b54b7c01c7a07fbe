"""Checkpoints: what goes in comes out, nothing in a file is executed, and a bad file is a sentence with a remedy."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lntl.errors import UserError
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint

CONTENT = Checkpoint(
    config={"training": {"phases": [{"method": "erm", "lr": 0.001}]}, "data": None},
    trainer={"phase": 1, "networks": {"f.weight": torch.arange(6.0).view(2, 3)}, "average": None, "pending": []},
    records=[{"epoch": 1, "train/task": 0.1 + 0.2}],
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
    assert loaded.trainer == {"phase": 1, "networks": {}, "average": None, "pending": []}


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_malicious_object_is_refused_not_executed(path: Path) -> None:
    mark = path.with_name("executed")
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer": _Malicious(mark)}, path)
    assert "use another one" in refusal(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file does what the test believes
    assert mark.exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert f"use another one from {path.parent}" in refusal(path)


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
    assert "of another program" in refusal(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", "kein Prüfpunkt".encode(), bytes(1000)])
def test_a_file_that_is_no_torch_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "of another program" in refusal(path)


def test_another_format_version(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(content | {"format": 99, "lntl": "8.7.6"}, path)
    assert "format 99" in refusal(path)
    assert "install lntl 8.7.6" in refusal(path)


def test_another_format_version_that_does_not_say_its_lntl(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["lntl"]
    torch.save(content | {"format": 99}, path)
    assert "format 99" in refusal(path)


@pytest.mark.parametrize("name", ["missing.pth", "no/such/folder/last.pth", "."])
def test_missing(tmp_path: Path, name: str) -> None:
    assert "no such checkpoint" in refusal(tmp_path / name)
