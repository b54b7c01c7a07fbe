"""Several processes for one run: start them, connect them, and report their errors."""

import atexit
import logging
import os
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from lntl import ranks
from lntl.config import Config, Training
from lntl.errors import RANK_ERRORS, DeadEndError, RankLostError, UserError, shorten
from lntl.experiment.build import MEETING_SECONDS, check_devices, rank_fabric
from lntl.experiment.checkpoints import flatten

SHUTDOWN_SECONDS = 20  # time that a stopped rank has to save its state before it is killed
_COLLECTIVE_TIMEOUT = timedelta(days=1)  # long: ranks wait while rank 0 fits a phase; a dead rank is noticed anyway
_LAUNCHER = "LNTL_LAUNCHER"  # number of the process that started the ranks
_STOPPED_CODE = 130  # exit code of a run that was stopped
# Keys that may differ between ranks.
_RANK_KEYS = ("training.device", "logging.", "project.name", "project.description")


def is_rank() -> bool:
    """Return whether this process is one of several that torchrun, `lntl train` or srun started."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    return "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def _count_processes(training: Training) -> tuple[int, int]:
    """Return (processes per machine, machines) of the configuration, or of torchrun if one process is configured."""
    if training.devices * training.num_nodes == 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    return training.devices, training.num_nodes


def join(config: Config) -> Config:
    """Connect to the other ranks of the run, if this process is one of several; a second call does nothing.

    Returns:
        The configuration with the numbers of processes that were started.

    Raises:
        UserError: If the number of started processes is not that of the configuration, if rank 0 has other settings, or
            if the other ranks cannot be reached.
    """
    training = config.training
    devices, nodes = _count_processes(training)
    if not is_rank():
        if devices * nodes > 1:
            raise UserError(
                f"training.devices: a run of {devices * nodes} processes is started by `lntl train`, torchrun or srun; "
                "set training.devices and training.num_nodes to 1 here"
            )
        return config
    counts = {"devices": devices, "num_nodes": nodes}
    config = config.model_copy(update={"training": training.model_copy(update=counts)})
    if ranks.world_size() > 1:
        return config
    num_started = int(os.environ.get("WORLD_SIZE") or os.environ["SLURM_NTASKS"])
    if devices * nodes != num_started:
        raise UserError(
            f"training.devices: {devices} on each of {nodes} machines (training.num_nodes) are configured, but "
            f"{num_started} processes were started; make both numbers agree"
        )
    os.environ.setdefault("SLURM_NODELIST", "127.0.0.1")
    try:
        fabric = rank_fabric(config.training)
    except (RuntimeError, ValueError) as error:  # such as variables of SLURM that Fabric does not support
        raise UserError(f"training.devices: {' '.join(str(error).split())}") from error
    try:
        fabric.launch()
        atexit.register(torch.distributed.destroy_process_group)  # its threads must end before the process does
        torch.distributed.barrier()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        number = os.environ.get("RANK") or os.environ["SLURM_PROCID"]
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankLostError(
            f"rank {number} of {num_started} did not reach the others at {address} within {MEETING_SECONDS:.0f} s "
            f"({shorten(reason)}); check that all were started and that this address is open to them"
        ) from error
    # Before torch 2.10, set_timeout was the private function _set_pg_timeout.
    old_function = torch.distributed.distributed_c10d._set_pg_timeout
    getattr(torch.distributed, "set_timeout", old_function)(_COLLECTIVE_TIMEOUT)
    ranks.join(fabric.global_rank, fabric.world_size)
    _check_same_settings(config)
    return config


def _check_same_settings(config: Config) -> None:
    """Raise UserError on every rank if one has other settings or another version than rank 0."""
    settings = {k: v for k, v in flatten(config.model_dump()).items() if not k.startswith(_RANK_KEYS)}
    settings["the version of torch"] = torch.__version__
    first, *others = ranks.gather_objects(settings)
    for number, other in enumerate(others, 1):
        different_keys = [key for key in sorted(first.keys() | other.keys()) if first.get(key) != other.get(key)]
        if different_keys:
            key = different_keys[0]
            raise UserError(
                f"rank {number} has other settings than rank 0: {key} is {shorten(other.get(key))}, not "
                f"{shorten(first.get(key))}; start all ranks with the same configuration"
            )


def is_orphan() -> bool:
    """Return whether the process that started this rank has ended."""
    return _LAUNCHER in os.environ and os.getppid() != int(os.environ[_LAUNCHER])


def launch(config: Config) -> bool:
    """Run this command again in each process that the configuration asks for, and wait for their end.

    This process is not a rank: it starts the ranks, stops all of them if one ends early, and reports the reason.

    Returns:
        False, at once, if the run has one process, or if this process is already a rank.

    Raises:
        UserError: If a rank fails, with the message of its error.
    """
    training = config.training
    if is_rank() or training.devices * training.num_nodes == 1:
        return False
    if training.num_nodes > 1:
        raise UserError(
            f"training.num_nodes: start this run on each of the {training.num_nodes} machines: torchrun --nnodes "
            f"{training.num_nodes} --nproc-per-node {training.devices} --rdzv-backend c10d --rdzv-endpoint HOST:29400 "
            "-m lntl train ..., or with srun"
        )
    check_devices(training.device, training.devices)
    with tempfile.TemporaryDirectory(prefix="lntl-ranks-") as folder:
        _run_ranks(training, Path(folder))
    return True


def _run_ranks(training: Training, folder: Path) -> None:
    """Run the ranks until they end; they write their errors into `folder`."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    threads = str(max(1, (os.cpu_count() or 1) // training.devices))
    environment = {RANK_ERRORS: str(folder), _LAUNCHER: str(os.getpid())}
    defaults = {"OMP_NUM_THREADS": threads} | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})
    signals = ["SIGTERM", "SIGINT"] + ["SIGHUP"] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)
    settings: dict[str, Any] = {"signals_to_handle": ",".join(signals), "shutdown_timeout": SHUTDOWN_SECONDS}
    old_environment = dict(os.environ)
    os.environ.update({**defaults, **old_environment, **environment})  # the ranks inherit the environment
    script = Path(sys.argv[0])
    program = [str(script)] if script.suffix == ".py" and script.name != "__main__.py" else ["-P", "-m", "lntl"]
    try:
        elastic_launch(
            LaunchConfig(
                min_nodes=1, max_nodes=1, nproc_per_node=training.devices, run_id=folder.name, max_restarts=0,
                rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
                logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")), **settings,
            ),
            sys.executable,
        )(*program, *sys.argv[1:])  # fmt: skip
    except SignalException:
        raise SystemExit(_STOPPED_CODE) from None
    except ChildFailedError as error:
        failures = {number: failure.exitcode for number, failure in error.failures.items()}
        raise _rank_error(folder, failures) from None
    finally:
        os.environ.clear()
        os.environ.update(old_environment)


def _rank_error(folder: Path, exit_codes: dict[int, int]) -> BaseException:
    """Return the error to raise for ranks that failed with these exit codes."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("rank*"))]
    killed = {number: code for number, code in exit_codes.items() if code < 0}
    causes = [text for text in texts if not text.startswith(RankLostError.__name__)]
    if causes or (texts and not killed):
        kind, _, message = [*causes, *texts][0].partition("\n")
        return DeadEndError(message) if kind == DeadEndError.__name__ else UserError(message)
    if set(exit_codes.values()) == {_STOPPED_CODE}:
        return SystemExit(_STOPPED_CODE)  # rank 0 has printed the message
    number, code = next(iter((killed or exit_codes).items()))
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return UserError(
        f"rank {number} {ending}, so the run was stopped; its last checkpoint is complete, and the same command with "
        "--resume auto continues from there"
    )
