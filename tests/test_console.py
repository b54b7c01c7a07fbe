"""The output of the command line while a command runs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from errno import ENOSPC
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.table import Table

from lntl import cli
from lntl.cli import console
from lntl.errors import UserError
from lntl.experiment.run import _log_to_file
from lntl.training.trainer import Step

STEPS, BATCH_SIZE = 100, 10  # steps of each of the two phases, which have one epoch; images per step


def test_speed_and_time_left_are_computed_from_the_current_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phase 1 has steps of 1 s, phase 2 steps of 4 s: halfway through phase 2, 50 steps are left, 200 s."""
    current_time, lines = 0.0, list[str]()
    trainer = SimpleNamespace(
        phase=0,
        total_steps=0,
        total_epochs=2,
        epoch_index=0,
        loader=range(STEPS),
        settings=SimpleNamespace(method="m", epochs=1),
    )

    def make_events() -> Iterator[Step]:
        nonlocal current_time
        for number in range(2 * STEPS):
            trainer.phase = number // STEPS
            current_time += (1.0, 4.0)[trainer.phase]
            trainer.total_steps += 1
            yield Step(number % STEPS + 1, STEPS, {"task": 0.5} if trainer.total_steps == 1.5 * STEPS else None)

    monkeypatch.setattr(console, "monotonic", lambda: current_time)
    monkeypatch.setattr(console.log, "info", lambda text, *values: lines.append(text % values))
    console.show_progress(make_events(), cast(Any, trainer), BATCH_SIZE)
    assert lines == ["m epoch 1/1 step 50/100 2 img/s task=0.500, 0:03:20 left"]


def test_a_phase_of_one_step_counts_as_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that trains nothing has one step, which takes 20 s for all 1,000 images; no time is left."""
    times, lines = iter([0.0, 0.0, 20.0, 20.0, 20.0, 20.0]), list[str]()
    settings = SimpleNamespace(method="dfr", epochs=1)
    trainer = SimpleNamespace(
        phase=0, total_steps=0, total_epochs=1, epoch_index=0, loader=range(STEPS), settings=settings
    )

    def make_events() -> Iterator[Step]:
        trainer.total_steps = 1
        yield Step(1, 1, {"task": 0.5})

    monkeypatch.setattr(console, "monotonic", lambda: next(times))
    monkeypatch.setattr(console.log, "info", lambda text, *values: lines.append(text % values))
    console.show_progress(make_events(), cast(Any, trainer), BATCH_SIZE)
    assert lines == ["dfr epoch 1/1 step 1/1 50 img/s task=0.500, 0:00:00 left"]


def test_a_text_is_printed_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup is not interpreted and lines are not wrapped; control characters are escaped."""
    console.echo("q[/z]/d[old]/[bold]:car: caf\udce9 " + "long " * 50, style="dim")
    assert capsys.readouterr().out == "q[/z]/d[old]/[bold]:car: caf\\udce9 " + "long " * 50 + "\n"


def test_names_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped in plain text, tables and errors; tabs and line ends are printed."""
    console.echo("a\x1b[2Jb\rc\nd")
    table = Table("name")
    table.add_row("\x1b]0;title\x07", end_section=True)
    console.out.print(table)

    def raise_error() -> None:
        raise UserError("x.pth: no class \x1b[31mcat\x9b\nsecond line")

    with pytest.raises(SystemExit):
        cli.exit_on_error(raise_error, debug=False)
    captured = capsys.readouterr()
    assert captured.out.startswith("a\\x1b[2Jb\\rc\nd\n")
    assert r"\x1b]0;title\x07" in captured.out
    assert captured.err == "Error: x.pth: no class \\x1b[31mcat\\x9b\nsecond line\n"


@pytest.mark.parametrize(
    "error", [UserError(f"{'x' * 9000}: is gone; use another"), OSError(36, "Too long", "y" * 9000)]
)
def test_a_message_is_short_even_if_its_names_are_long(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def raise_error() -> None:
        raise error

    with pytest.raises(SystemExit):
        cli.exit_on_error(raise_error, debug=False)
    message = capsys.readouterr().err
    assert len(message) < 1000
    assert message.startswith(("Error: xxx", "Error: yyy"))
    assert message.endswith((": is gone; use another\n", ": Too long\n"))


def test_characters_that_the_terminal_cannot_encode_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the encoding lacks are escaped in tables, plain text and errors."""
    stdout, stderr = (TextIOWrapper(BytesIO(), encoding="latin-1") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)

    def print_and_raise() -> None:
        console.out.print(Table("猫"))
        console.echo("犬")
        print("é")
        raise UserError("鳥: no such class")

    with pytest.raises(SystemExit) as stop:
        cli.exit_on_error(print_and_raise, debug=False)
    stderr.flush()
    assert stop.value.code == 2
    assert [text in stdout.buffer.getvalue() for text in (rb"\u732b", rb"\u72ac", b"\xe9")] == [True] * 3
    assert stderr.buffer.getvalue() == b"Error: \\u9ce5: no such class\n"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(ENOSPC, "No space left on device", "a/b.pth"), r"a/b\.pth: No space left on device; free some space"),
        (PermissionError(13, "Permission denied", "x"), "x: Permission denied"),
        (MemoryError("Unable to allocate 7.28 TiB"), "too little memory: Unable to allocate 7.28 TiB; set a smaller"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
            "too little memory: .*DefaultCPUAllocator.*; all files written so far are complete",
        ),
    ],
)
def test_a_full_disk_and_too_little_memory_give_one_sentence(
    error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_error() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.exit_on_error(raise_error, debug=False)
    assert stop.value.code == 2
    assert re.match(f"Error: {sentence}", capsys.readouterr().err)


def test_output_into_a_full_device_gives_one_sentence() -> None:
    for device, code, message in (
        ("/dev/full", 2, "Error: standard output or a temporary file: No space left on device"),
        (None, 0, ""),
    ):
        with Path(device or os.devnull).open("w") as out:
            process = subprocess.run(
                [sys.executable, "-m", "lntl", "--version"], stdout=out, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (process.returncode, process.stderr[: len(message)]) == (code, message)
        assert "Traceback" not in process.stderr
        assert "Exception ignored" not in process.stderr


def test_a_log_file_on_a_full_disk_is_closed_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    console.log_to_console()
    with _log_to_file(Path("/dev/full")):
        console.log.info("first")
        console.log.info("second")
    console.log.handlers[0].close()
    console.log.handlers = []
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert (lines[0], lines[2:]) == ("first", ["second"])
    assert lines[1].startswith("/dev/full: cannot write it: No space left on device; ")
    assert lines[1].endswith("; the log continues only in the terminal")
