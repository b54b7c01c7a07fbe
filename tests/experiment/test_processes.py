"""A run on two processes, from the command line: start, kill, resume, stop, and refused settings."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lntl.config import Config
from lntl.errors import UserError
from lntl.experiment import processes
from lntl.experiment.build import rank_fabric
from lntl.runs import checkpoint

NUM_EPOCHS = 6


def write_run(folder: Path, name: str = "run", num_epochs: int = NUM_EPOCHS, **training: Any) -> Path:
    """Write the configuration of a run on two processes, and return its path."""
    raw = {
        "project": {"experiment_name": name},
        "data": {"name": "colored_mnist", "path": "/nonexistent", "max_images": 200},
        "model": {"name": "lenet", "feature_dim": 16, "hidden_dim": 16},
        "training": {
            "device": "cpu", "devices": 2, "batch_size": 32,
            "phases": [{"method": "erm", "epochs": 1}, {"method": "lntl", "epochs": num_epochs - 1}],
        } | training,
        "logging": {"output_dir": str(folder), "use_tensorboard": False},
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def start_training(config: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lntl", "train", str(config), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=config.parent)


def wait_for_end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for the end of a process; return its exit code, stdout and stderr."""
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def find_child_processes(pid: int) -> list[int]:
    """Return the process ids of the ranks that a process started, in order."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_epochs(process: "subprocess.Popen[str]", run: Path, number: int) -> None:
    metrics = run / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < number):
        time.sleep(0.02)


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "last.pth").trainer["networks"]


def kill_and_resume(folder: Path, kills: int) -> None:
    """Kill rank 1, rank 0, and so on, resuming after each kill; compare with an uninterrupted run."""
    num_epochs = 4 * kills  # one to three epochs may end between two kills
    uninterrupted_process = start_training(write_run(folder, "uninterrupted", num_epochs))
    config, run = write_run(folder, num_epochs=num_epochs), folder / "run"
    assert wait_for_end(uninterrupted_process)[0] == 0
    epochs = 0
    for number in range(kills):
        process = start_training(config, "--resume", "auto")
        wait_for_epochs(process, run, epochs + 1)
        ranks = find_child_processes(process.pid)
        kill_time = time.monotonic()
        os.kill(ranks[(number + 1) % 2], signal.SIGKILL)
        code, _, err = wait_for_end(process)
        assert time.monotonic() - kill_time < 30
        assert code == 2
        (sentence,) = [line for line in err.splitlines() if line.startswith("Error")]
        assert f"rank {(number + 1) % 2} was killed by SIGKILL" in sentence
        assert "--resume auto" in sentence
        assert "Traceback" not in err
        assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
        epochs = len(checkpoint.load(run / "checkpoints" / "last.pth").records)
    code, out, err = wait_for_end(start_training(config, "--resume", "auto"))
    assert code == 0, err
    assert out.count("run on the test set") == 1
    for name, value in load_weights(folder / "uninterrupted").items():
        assert torch.equal(value, load_weights(run)[name]), name
    assert sorted(path.name for path in run.iterdir()) == sorted(
        path.name for path in (folder / "uninterrupted").iterdir()
    )


@pytest.mark.full
def test_a_killed_rank_ends_the_run_and_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=3)


@pytest.mark.full
@pytest.mark.slow
def test_twenty_killed_ranks_change_no_bit(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=20)


@pytest.mark.full
def test_ctrl_c_saves_and_ends_all_ranks_and_one_process_may_continue(tmp_path: Path) -> None:
    config, run = write_run(tmp_path), tmp_path / "run"
    process = start_training(config)
    wait_for_epochs(process, run, 1)
    ranks = find_child_processes(process.pid)
    process.send_signal(signal.SIGINT)
    code, _, err = wait_for_end(process)
    assert (code, err.count("stopped at step")) == (130, 1)
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    code, _, err = wait_for_end(start_training(config, "training.devices=1", "--resume", "auto"))
    assert code == 0, err
    assert "trained by 2 processes before and by 1 from here on: the last bits differ" in err


@pytest.mark.full
def test_an_error_of_the_ranks_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("not a run of ours\n")
    code, out, err = wait_for_end(start_training(write_run(tmp_path)))
    assert (code, out) == (2, ""), err
    (sentence,) = err.splitlines()
    assert sentence.startswith(f"Error: {tmp_path / 'run'} already contains a run")


def start_slurm_rank(config: Path, rank: int, port: int, **changes: str) -> "subprocess.Popen[str]":
    """Start a rank on this machine with the environment variables that srun sets."""
    slurm_variables = {
        "SLURM_JOB_ID": str(port), "SLURM_JOB_NAME": "train", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo", "LNTL_MEETING_SECONDS": "5",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "lntl", "train", str(config), *(f"{key}={value}" for key, value in changes.items())],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | slurm_variables,
    )  # fmt: skip


@pytest.mark.full
def test_ranks_of_slurm_must_have_the_same_settings_and_reach_each_other(tmp_path: Path) -> None:
    config = write_run(tmp_path)
    different_ranks = start_slurm_rank(config, 0, 7301), start_slurm_rank(config, 1, 7301, **{"project.seed": "5"})
    single_rank = start_slurm_rank(config, 1, 7302)  # rank 0 of this job never starts
    for code, _, err in map(wait_for_end, different_ranks):
        assert code == 2
        assert "rank 1 has other settings than rank 0: project.seed is 5, not 0" in err.splitlines()[-1]
    code, _, err = wait_for_end(single_rank)
    assert code == 2
    assert "rank 1 of 2 did not reach the others at 127.0.0.1:22302 within 5 s" in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


# --- settings that are refused before a process starts ---


def test_several_processes_need_a_kind_of_device_and_not_a_single_device(make_config: Callable[..., Config]) -> None:
    with pytest.raises(
        UserError, match="device cuda:1 is a single device, but the run has 2 processes; write only the kind"
    ):
        make_config("erm", training={"device": "cuda:1", "devices": 2})


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a GPU is available")
def test_ranks_without_a_gpu_use_gloo_also_if_torch_was_built_for_cuda(make_config: Callable[..., Config]) -> None:
    fabric = rank_fabric(make_config("erm", training={"device": "auto", "devices": 2}).training)
    assert fabric.strategy.process_group_backend == "gloo"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"devices": 5000, "batch_size": 10_000}, "training.devices: 5000 on cpu, but this machine has only"),
        ({"devices": 2, "num_nodes": 3}, "torchrun --nnodes 3 --nproc-per-node 2"),
    ],
)
def test_numbers_of_processes_that_cannot_be_started_are_refused(
    make_config: Callable[..., Config], training: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        processes.launch(make_config("erm", training=training))


def test_a_single_process_cannot_join_a_run_of_two(make_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="a run of 2 processes is started by `lntl train`, torchrun or srun"):
        processes.join(make_config("erm", training={"devices": 2}))
