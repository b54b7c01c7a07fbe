"""What every benchmark does with its figures: print them, and write them with where they were measured."""

from pathlib import Path
from typing import Any

from lntl.runs import environment
from lntl.runs.files import write_json


def tell(found: dict[str, Any], path: Path) -> None:
    """Print each figure on a line, and write all of them, with the machine and the versions, as JSON."""
    for name, value in found.items():
        print(f"{name}: {value}")
    write_json(path, found | {"environment": environment.describe().model_dump(exclude={"resumed"})})
