"""Waterbirds (Sagawa et al., ICLR 2020): birds from CUB-200-2011 on backgrounds from Places.

In training, 95 % of the waterbirds are on water and 95 % of the landbirds on land. In val and test, half of
each kind are on water and half on land.
Source: the README of github.com/kohpangwei/group_DRO.
"""

from pathlib import Path

from lntl.makers.tables import DatasetTable, find_name, find_path, rows

LABELS = {"0": "landbird", "1": "waterbird"}
PLACES = {"0": "land", "1": "water"}
SPLITS = {"0": "train", "1": "val", "2": "test"}


def make(source: Path) -> DatasetTable:
    """Return a table of image, label, background and split from the folder waterbird_complete95_forest2water2/."""
    metadata = find_path(source, ["metadata.csv"])
    table: dict[str, list[str]] = {"image": [], "label": [], "background": [], "split": []}
    for number, row in rows(metadata, ["img_filename", "y", "split", "place"]):
        position = f"{metadata}: line {number}"
        table["image"].append(row["img_filename"])
        table["label"].append(find_name(LABELS, row["y"], position, "y"))
        table["background"].append(find_name(PLACES, row["place"], position, "place"))
        table["split"].append(find_name(SPLITS, row["split"], position, "split"))
    return DatasetTable(table, "label", "background", [])
