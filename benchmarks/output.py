"""Print the results of a benchmark, and write them with the hardware and the versions."""

from pathlib import Path
from typing import Any

from lntl.runs import environment
from lntl.runs.files import write_json


def write_result(results: dict[str, Any], path: Path) -> None:
    """Print each value on a line, and write all of them, with the machine and the versions, as JSON."""
    for name, value in results.items():
        print(f"{name}: {value}")
    write_json(path, results | {"environment": environment.describe().model_dump(exclude={"resumed"})})
