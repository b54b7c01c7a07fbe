"""What `lntl data check` does."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from lntl import config as configuration
from lntl.audit.facts import audit
from lntl.cli import console
from lntl.cli.console import out, tell
from lntl.config import ready as ready_configs
from lntl.reporting.check_tables import check_tables


def check(config_name: str, overrides: list[str], folder: Path | None, look: bool) -> bool:
    """Audit the data of a configuration, show and write what was found; return whether results can be trusted."""
    from lntl.reporting.check import write_check  # here, for matplotlib is slow to import

    config = configuration.read_for_data(ready_configs.find(config_name), overrides)
    if folder is None:
        folder = Path(config.logging.output_dir) / "checks" / config.project.experiment_name
    found = audit(config, look, _watched)
    tell(found.facts["source"])
    for part in check_tables(found.facts):
        out.print(part, highlight=False, soft_wrap=isinstance(part, str))  # lines of YAML stay whole
    for path in write_check(found.facts, found.pictures, folder):
        tell(f"  {path}")
    return bool(found.facts["trustworthy"])


def _watched(parts: Sequence[Tensor], name: str) -> Iterable[Tensor]:
    """Yield the parts with a bar of the images that are done."""
    with console.counting(f"{name}: images", sum(map(len, parts))) as advance:
        for part in parts:
            yield part
            advance(len(part))
