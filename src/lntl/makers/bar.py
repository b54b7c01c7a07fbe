"""BAR, Biased Action Recognition (Nam et al., NeurIPS 2020): six actions, in training at their usual places.

The folders train/ and test/ contain files such as climbing_0.jpg; the places are not annotated. Source:
github.com/alinlab/BAR.
"""

import re
from pathlib import Path

from lntl.errors import UserError
from lntl.makers.tables import Made, found

ACTIONS = ("climbing", "diving", "fishing", "racing", "throwing", "vaulting")
_NAME = re.compile(r"(?:pole )?(\w+)_\d+\.(?:jpg|jpeg|png)")


def make(source: Path) -> Made:
    """Return the columns image, label and split; in test the actions are at unusual places."""
    table: dict[str, list[str]] = {"image": [], "label": [], "split": []}
    foreign: list[Path] = []
    for split in ("train", "test"):
        folder = found(source, [split])
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is None or match[1] not in ACTIONS:
                foreign.append(path)
                continue
            table["image"].append(path.relative_to(source).as_posix())
            table["label"].append(match[1])
            table["split"].append(split)
        if split not in table["split"]:
            raise UserError(f"{folder}: no image in it is named like climbing_0.jpg; name the folder of BAR's train/")
    notes = [f"{len(foreign)} files are not images of an action and are left out, first {path}" for path in foreign]
    return Made(table, "label", None, notes[:1])
