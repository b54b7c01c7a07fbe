"""Output of the command line while a run goes on."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lntl.cli import console
from lntl.training.trainer import Step

STEPS, BATCH = 100, 10  # of each of two phases of one epoch


def test_speed_and_time_left_are_those_of_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s, then steps of 4 s: halfway through the second phase 50 of them are left, 200 s."""
    now, told = 0.0, list[str]()
    trainer = SimpleNamespace(
        phase=0,
        total_steps=0,
        total_epochs=2,
        epoch_index=0,
        loader=range(STEPS),
        settings=SimpleNamespace(method="m", epochs=1),
    )

    def events() -> Iterator[Step]:
        nonlocal now
        for number in range(2 * STEPS):
            trainer.phase = number // STEPS
            now += (1.0, 4.0)[trainer.phase]
            trainer.total_steps += 1
            yield Step(number % STEPS + 1, STEPS, {"task": 0.5} if trainer.total_steps == 1.5 * STEPS else None)

    monkeypatch.setattr(console, "monotonic", lambda: now)
    monkeypatch.setattr(console.log, "info", lambda text, *values: told.append(text % values))
    console.show_progress(events(), cast(Any, trainer), BATCH)
    assert told == ["m epoch 1/1 step 50/100 2 img/s task=0.500, 200 s left"]


def test_a_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor wrapped; what no terminal could show is escaped."""
    console.echo("q[/z]/d[old]/[bold]:car: caf\udce9 " + "long " * 50, style="dim")
    assert capsys.readouterr().out == "q[/z]/d[old]/[bold]:car: caf\\udce9 " + "long " * 50 + "\n"
