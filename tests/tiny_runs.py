"""The configuration of a tiny run, and processes that run the command line and can be killed at a function call.

The processes are forked from a server that has imported all modules and read the digits, so that each starts in a
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
TIME_LIMIT = 300  # time limit of a process; high, because the machine may be busy
# 90 training images in batches of 32: three steps an epoch. Steps 1 to 3 erm, 4 to 6 bias_head, 7 to 12 lntl.
TINY_CONFIG: dict[str, Any] = {
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
    """Write tiny.yaml: TINY_CONFIG, with the settings of `sections` added to its sections."""
    path = folder / "tiny.yaml"
    path.write_text(
        yaml.safe_dump({key: TINY_CONFIG[key] | sections.get(key, {}) for key in TINY_CONFIG}), encoding="utf-8"
    )
    return path


def lntl(*arguments: str) -> int:
    """Run the command line in this process; return its exit code."""
    return get_exit_code(lambda: cli.main(list(arguments)))


def get_exit_code(main: Callable[[], object]) -> int:
    """Return the exit code of a program that runs in this process."""
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        while log.handlers:  # the handlers keep streams and files of this test open
            log.handlers[0].close()
            log.removeHandler(log.handlers[0])
    assert isinstance(code, int | None)
    return code or 0


_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["pytest", "torch.utils.tensorboard", "torchvision.utils", "preload"])


def start_server() -> None:
    """Start the server if it does not run; it finds the modules of the tests by PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def start_process(*arguments: str, folder: Path, prepare: Callable[[], object] | None = None) -> ForkServerProcess:
    """Start `lntl ARGUMENTS` in a new process; `prepare()` runs there first.

    The working directory of the process is `folder`; its output goes to the files stdout and stderr there.
    """
    start_server()
    process = _server.Process(target=_run_command_line, args=(list(arguments), folder, prepare), daemon=True)
    process.start()
    return process


def run(*arguments: str, folder: Path, prepare: Callable[[], object] | None = None) -> int:
    """Run `lntl ARGUMENTS` in a new process to its end; return its exit code, -N if signal N killed it."""
    return wait_for_exit_code(start_process(*arguments, folder=folder, prepare=prepare))


def wait_for_exit_code(process: ForkServerProcess) -> int:
    """Wait for the end of a process; return its exit code."""
    process.join(TIME_LIMIT)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    process.close()
    assert code is not None, f"the process did not end within {TIME_LIMIT} s"
    return code


def _run_command_line(arguments: list[str], folder: Path, prepare: Callable[[], object] | None) -> None:
    os.chdir(folder)
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), {"stdout": 1, "stderr": 2}[name])
        stream.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    cli.main(arguments)


@dataclass(frozen=True)
class SignalAtCall:
    """Make the process send itself a signal just before the n-th call of a function ("module:name")."""

    function: str
    call: int
    signal: int
    times: int = 1

    def __call__(self) -> None:
        """Replace the function."""
        owner_name, _, name = self.function.replace(":", ".").rpartition(".")
        owner, calls = pkgutil.resolve_name(owner_name), 0
        original = getattr(owner, name)

        def send_signal_and_call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            for _ in range(self.times if calls == self.call else 0):
                os.kill(os.getpid(), self.signal)
            return original(*arguments, **keywords)

        setattr(owner, name, send_signal_and_call)


def flatten_leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Return a dict from path to leaf of nested dicts and lists, without times and durations."""
    if isinstance(tree, dict | list):
        items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
        length = {f"{path} (length)": len(items)}
        return length | {k: v for key, value in items for k, v in flatten_leaves(value, f"{path}/{key}").items()}
    return {} if "/time/" in path or path.endswith("training_seconds") else {path: tree}


def assert_equal(first_tree: Any, second_tree: Any) -> None:
    """Assert that two nested structures are equal (tensors bit for bit), except for durations."""
    first, second = flatten_leaves(first_tree), flatten_leaves(second_tree)
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == second[path].dtype, path
            assert torch.equal(value, second[path]), path
        else:
            assert value == second[path], path


def assert_same_run(first_run: Path, second_run: Path) -> None:
    """Assert that two runs have equal networks, optimisers, averages and logged numbers, except for times."""
    for name in ("last.pth", "best_model.pth"):
        first, second = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (first_run, second_run))
        assert_equal(first, second)
    assert_equal(read_metrics(first_run), read_metrics(second_run))
    assert_equal(*(json.loads((run / "result.json").read_text()) for run in (first_run, second_run)))


def read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl."""
    return [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: files with their content, folders with None."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
