"""BAR, Biased Action Recognition (Nam et al., NeurIPS 2020): in training, six actions are at their usual places.

The folders train/ and test/ contain files such as climbing_0.jpg; the places are not annotated. Source:
github.com/alinlab/BAR.
"""

import re
from pathlib import Path

from lntl.errors import UserError
from lntl.makers.tables import DatasetTable, find_path

ACTIONS = ("climbing", "diving", "fishing", "racing", "throwing", "vaulting")
_NAME = re.compile(r"(?:pole )?(\w+)_\d+\.(?:jpg|jpeg|png)")


def make(source: Path) -> DatasetTable:
    """Return the columns image, label and split; in test the actions are at unusual places."""
    table: dict[str, list[str]] = {"image": [], "label": [], "split": []}
    other_files: list[Path] = []
    for split in ("train", "test"):
        folder = find_path(source, [split])
        for path in sorted(folder.iterdir()):
            match = _NAME.fullmatch(path.name)
            if match is None or match[1] not in ACTIONS:
                other_files.append(path)
                continue
            table["image"].append(path.relative_to(source).as_posix())
            table["label"].append(match[1])
            table["split"].append(split)
        if split not in table["split"]:
            raise UserError(
                f"{folder}: no image in it is named like climbing_0.jpg; name the folder that contains train/ of BAR"
            )
    notes = []
    if other_files:
        notes.append(f"{len(other_files)} files are not images of an action and are left out, such as {other_files[0]}")
    return DatasetTable(table, "label", None, notes)
