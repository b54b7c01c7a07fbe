"""A tiny run, and fast processes that run the command line on it, which a test can kill at a chosen function call.

The processes are forked from a server that has imported everything and read the digits, so that a real process costs a
fraction of a second.
"""

import json
import multiprocessing
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lntl import cli
from lntl.cli.console import log

ROOT = Path(__file__).parents[1]
SECONDS = 300  # that a process may take: far more than it needs, for machines under load
# 90 training images in batches of 32: three steps an epoch. Steps 1 to 3 erm, 4 to 6 bias_head, 7 to 12 lntl.
TINY: dict[str, Any] = {
    "project": {"experiment_name": "tiny"},
    "data": {"name": "colored_mnist", "path": "/nonexistent", "max_images": 100},
    "model": {"name": "convnet"},
    "training": {
        "device": "cpu",
        "batch_size": 32,
        "ema": 0.9,
        "phases": [
            {"method": "erm", "epochs": 1},
            {"method": "bias_head", "epochs": 1},
            {"method": "lntl", "epochs": 2},
        ],
    },
    # TensorBoard's pictures take as long as the training.
    "logging": {"output_dir": "results", "log_interval_batches": 2, "use_tensorboard": False},
    "evaluation": {"erm_epochs": 0},
}
RUN = Path("results/tiny")


def write_config(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write tiny.yaml, each given section merged into the one of TINY."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({key: TINY[key] | sections.get(key, {}) for key in TINY}), encoding="utf-8")
    return path


def lntl(*arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    return exit_code(lambda: cli.main(list(arguments)))


def exit_code(main: Callable[[], object]) -> int:
    """Return the exit code of a program that runs in this process."""
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        while log.handlers:  # they hold the streams and files of this test
            log.handlers[0].close()
            log.removeHandler(log.handlers[0])
    assert isinstance(code, int | None)
    return code or 0


_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pytest", "torch.utils.tensorboard", "torchvision.utils", "warm"])


def start_server() -> None:
    """Start the server if it does not run; it finds the modules of the tests by PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def begin(*arguments: str, folder: Path, prepare: Callable[[], object] | None = None) -> ForkServerProcess:
    """Start `lntl ARGUMENTS` in a new process; `prepare()` runs there first.

    It works in `folder` and writes to the files stdout and stderr there.
    """
    start_server()
    process = _server.Process(target=_work, args=(list(arguments), folder, prepare), daemon=True)
    process.start()
    return process


def run(*arguments: str, folder: Path, prepare: Callable[[], object] | None = None) -> int:
    """Run `lntl ARGUMENTS` in a new process to its end; return its exit code, -N if signal N killed it."""
    return ended(begin(*arguments, folder=folder, prepare=prepare))


def ended(process: ForkServerProcess) -> int:
    """Wait for the end of a process; return its exit code."""
    process.join(SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    assert code is not None, f"not over after {SECONDS} s"
    return code


def _work(arguments: list[str], folder: Path, prepare: Callable[[], object] | None) -> None:
    os.chdir(folder)
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), {"stdout": 1, "stderr": 2}[name])
        stream.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    cli.main(arguments)


@dataclass(frozen=True)
class Strike:
    """The process sends itself a signal just before it calls a function ("module:name") for the n-th time."""

    function: str
    call: int
    signal: int
    times: int = 1

    def __call__(self) -> None:
        """Replace the function."""
        place, _, name = self.function.replace(":", ".").rpartition(".")
        owner, calls = pkgutil.resolve_name(place), 0
        original = getattr(owner, name)

        def struck(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            for _ in range(self.times if calls == self.call else 0):
                os.kill(os.getpid(), self.signal)
            return original(*arguments, **named)

        setattr(owner, name, struck)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts and lists by path, without times and durations."""
    if isinstance(tree, dict | list):
        items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
        here = {f"{path} (length)": len(items)}
        return here | {k: v for key, value in items for k, v in leaves(value, f"{path}/{key}").items()}
    return {} if "/time/" in path or path.endswith("training_seconds") else {path: tree}


def assert_equal(one: Any, other: Any) -> None:
    """Assert that two nested structures are equal except for durations, tensors bit for bit."""
    first, second = leaves(one), leaves(other)
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == second[path].dtype, path
            assert torch.equal(value, second[path]), path
        else:
            assert value == second[path], path


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two runs have equal networks, optimisers, averages and logged numbers, times excepted."""
    for name in ("last.pth", "best_model.pth"):
        first, second = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        assert_equal(first, second)
    assert_equal(metrics(one), metrics(other))
    assert_equal(*(json.loads((run / "result.json").read_text()) for run in (one, other)))


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl."""
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: files with their content, folders with None."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
