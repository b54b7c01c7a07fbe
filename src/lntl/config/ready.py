"""The configurations that ship with the package."""

from importlib.resources import files
from pathlib import Path

from lntl.errors import UserError

FOLDER = Path(str(files("lntl") / "configs"))


def names() -> list[str]:
    """Return the names of the ready configurations, e.g. colored_mnist_default or colored_mnist/authors."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def find(name: str) -> Path:
    """Return the file of a configuration: a path, or the name of a ready one."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        from lntl.plugins import did_you_mean

        if name not in names():
            raise UserError(f"{name!r} is neither a file nor a ready configuration{did_you_mean(name, names())}")
        return FOLDER / f"{name}.yaml"
    return path
