"""Measure training on one process with two threads against two processes with one thread each, on the same two cores.

Usage: python benchmarks/processes.py [--seconds 15] [--rounds 5] [--out benchmarks/processes.json]

Both train the default configuration in its unlearning phase, in batches of 128. They take turns, each in new processes,
so that other load on the machine slows both. Prints and writes: images per second of both, by round, and the median
ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

WARM_UP = 3  # steps before the clock starts


def train(folder: Path, rank: int, world_size: int, threads: int, seconds: float) -> None:
    """Train for some seconds as one rank; rank 0 prints the images per second of all ranks together."""
    import torch
    import torch.distributed as dist

    from lntl import config, experiment, ranks

    torch.set_num_threads(threads)
    overrides = ["data.path=none", "training.device=cpu", "training.batch_size=128", "training.ema=null"]
    overrides += ["training.phases=[{method: lntl, epochs: 1000, updates: joint}]", f"training.devices={world_size}"]
    settings = config.read("colored_mnist_default", overrides)
    if world_size > 1:
        store = dist.FileStore(str(folder / "meeting"), world_size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(minutes=5))
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "TORCHELASTIC_RUN_ID": "benchmark"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
        ranks.join(rank, world_size)
    trainer = experiment.build(settings).trainer
    start, images, steps = 0.0, 0, 0
    while True:
        for step in trainer.epoch():
            steps += 1
            if steps <= WARM_UP:
                start = time.perf_counter()
            else:
                images += trainer.loader.size(step.index - 1)
            if ranks.any_rank(steps > WARM_UP and time.perf_counter() - start > seconds):
                if rank == 0:
                    print(images / (time.perf_counter() - start))
                return


def measure_speed(world_size: int, threads: int, seconds: float) -> float:
    """Return the images per second of a training in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--rank", folder, str(rank), str(world_size), str(threads), str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
            for rank in range(world_size)
        ]
        outputs = [process.communicate()[0] for process in processes]
        assert all(process.returncode == 0 for process in processes), "a rank has failed"
        return float(outputs[0])


def main() -> None:
    """Measure in turns and write the result."""
    from output import write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    one_process, two_processes = list[float](), list[float]()
    for number in range(arguments.rounds):
        for world_size in (1, 2) if number % 2 == 0 else (2, 1):
            speed = measure_speed(world_size, 2 // world_size, arguments.seconds)
            (one_process if world_size == 1 else two_processes).append(round(speed, 1))
            print(f"{world_size} process(es) x {2 // world_size} thread(s): {speed:.0f} images/s", flush=True)
    ratios = [b / a for a, b in zip(one_process, two_processes, strict=True)]
    result = {
        "one_process_two_threads": one_process,
        "two_processes_one_thread": two_processes,
        "ratios": [round(ratio, 3) for ratio in ratios],
        "median_ratio": round(statistics.median(ratios), 3),
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }
    write_result(result, arguments.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        train(Path(sys.argv[2]), *(int(value) for value in sys.argv[3:6]), float(sys.argv[6]))
    else:
        main()
