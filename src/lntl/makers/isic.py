"""ISIC 2018 (Task 1-2) with annotated artefacts, such as rulers, in trap sets (Bissoto et al., CVPR Workshops 2020).

In a trap set the artefacts mislead: in training they indicate a diagnosis; in test they indicate the opposite
diagnosis. The lists trap-sets/isic_annotated_{train,val,test}N.csv have the artefacts and the diagnosis of each image.
Source: github.com/alceubissoto/debiasing-skin.
"""

from pathlib import Path

from lntl.errors import UserError
from lntl.makers.tables import DatasetTable, find_name, find_path, require_folder, rows

ARTEFACTS = ("dark_corner", "hair", "gel_border", "gel_bubble", "ruler", "ink", "patches")
DIAGNOSES = {"benign": "benign", "malignant": "malignant"}
TRAP_SETS = 5


def make(source: Path, lists: Path, trap_set: int) -> DatasetTable:
    """Return the columns image, label, split and the seven artefacts; the ruler is the bias.

    The lists of train repeat the images of val; here these images are only in val.
    """
    files = {
        path.stem: path for ending in ("jpg", "png") for path in sorted(require_folder(source).rglob(f"*.{ending}"))
    }
    table: dict[str, list[str]] = {n: [] for n in ("image", "label", "split", *ARTEFACTS)}
    missing: list[str] = []
    num_repeated = 0
    split_by_name: dict[str, str] = {}
    for split in ("val", "test", "train"):
        path = find_path(lists, [f"{folder}isic_annotated_{split}{trap_set}.csv" for folder in ("trap-sets/", "")])
        for number, row in rows(path, ["image", "label_string", *ARTEFACTS]):
            position, name = f"{path}: line {number}", row["image"].partition(".")[0]
            if split_by_name.get(name) == "val" and split == "train":
                num_repeated += 1
                continue
            if name in split_by_name:
                raise UserError(
                    f"{position}: {name} is already listed, in {split_by_name[name]}; fetch the lists again"
                )
            split_by_name[name] = split
            if name not in files:
                missing.append(name)
                continue
            table["image"].append(files[name].relative_to(source).as_posix())
            table["label"].append(find_name(DIAGNOSES, row["label_string"], position, "label_string"))
            table["split"].append(split)
            for artefact in ARTEFACTS:
                word = artefact.replace("_", " ")
                table[artefact].append(find_name({"0": f"no {word}", "1": word}, row[artefact], position, artefact))
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(split_by_name)} listed images are not in this folder, such as "
            f"{missing[0]}.jpg; name the folder of all images of ISIC 2018 Task 1-2, see docs/DATA_SETS.md"
        )
    return DatasetTable(
        table, "label", "ruler", [f"{num_repeated} images are listed in val and in train; they are used only in val"]
    )
