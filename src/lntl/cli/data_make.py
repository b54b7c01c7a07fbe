"""`lntl data make`: write a file with rendered images, or the table of a download."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lntl.cli.arguments import ConfigArgument, Group, Overrides

if TYPE_CHECKING:
    from lntl.makers.tables import DatasetTable
    from lntl.types import Dataset

app = typer.Typer(
    cls=Group,
    help="Write a data set to a file: Colored MNIST as arrays, or the table of a public data set that you downloaded. "
    "Nothing is downloaded, and no image is copied.",
    epilog="docs/DATA_SETS.md: sources and terms of the data sets.",
    no_args_is_help=True,
)
Source = Annotated[Path, typer.Argument(metavar="SOURCE", readable=False, help="Folder of the unpacked download.")]
HeldOut = Annotated[
    float,
    typer.Option(
        min=0, max=0.5, help="Share of the chosen set that is used for test; the other set is used only for test."
    ),
]
Counterexamples = Annotated[
    int, typer.Option(min=0, metavar="N", help="Images of the other set to use in train instead of test.")
]
Seed = Annotated[
    int,
    typer.Option(min=0, help="Seed that selects the counterexamples; a larger N adds images to those of a smaller N."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT.csv", help="Table to write, for data: {name: table}.")]


@app.command("colored_mnist")
def colored_mnist(
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="File to write.")],
    config: ConfigArgument = "colored_mnist_default",
    overrides: Overrides = None,
) -> None:
    """Write the rendered images, labels and colors of every split to an .npz file.

    Per split: SPLIT_image (n, 28, 28, 3) uint8, SPLIT_label and SPLIT_color (n,).
    """
    import numpy as np
    import torch

    from lntl.cli.console import echo
    from lntl.data.colored_mnist import ColoredDigits
    from lntl.errors import UserError
    from lntl.runs.files import write_atomic

    if out.exists():
        raise UserError(f"{out} exists already; move it away first")
    arrays: dict[str, Any] = {}
    for name, split in load_data(config, overrides or []).splits.items():
        if not isinstance(split, ColoredDigits):
            raise UserError(
                f"{config}: its data set is not Colored MNIST; use a configuration with data.name: colored_mnist"
            )
        arrays[f"{name}_image"] = split.pixels(torch.arange(len(split))).permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_label"], arrays[f"{name}_color"] = split.y.numpy(), split.color.numpy()
    write_atomic(out, lambda file: np.savez_compressed(file, **arrays))
    echo(f"{out}: {', '.join(f'{name} {array.shape}' for name, array in arrays.items())}")


@app.command("dogs_and_cats")
def dogs_and_cats(
    source: Source,
    out: Out,
    train: Annotated[
        Literal["tb1", "tb2"], typer.Option(help="tb1: bright dogs and dark cats; tb2: the reverse.")
    ] = "tb1",
    lists: Annotated[
        Path | None, typer.Option(help="Folder of list_bright.txt and list_dark.txt; default: SOURCE.")
    ] = None,
    held_out: HeldOut = 0.2,
    counterexamples: Counterexamples = 0,
    seed: Seed = 0,
) -> None:
    """Dogs and Cats of the paper (TB1, TB2): label, color and split of the photographs in SOURCE/train/.

    Images: train.zip of Kaggle's competition dogs-vs-cats-redux-kernels-edition (or dogs-vs-cats).

    Lists: github.com/feidfoe/learning-not-to-learn, dataset/dogs_and_cats.
    """
    from lntl.makers import dogs_and_cats as maker

    data_table = maker.make(source, lists or source, train, held_out, counterexamples, seed)
    write_table(out, source, data_table, f"dogs_and_cats/{train}")


@app.command("imdb_faces")
def imdb_faces(
    source: Source,
    out: Out,
    train: Annotated[
        Literal["eb1", "eb2"], typer.Option(help="eb1: women of 0-29 years and men of 40 and more; eb2: the reverse.")
    ] = "eb1",
    lists: Annotated[
        Path | None, typer.Option(help="Folder of the authors' four .npy files; default: split by imdb.mat.")
    ] = None,
) -> None:
    """IMDB faces of the paper (EB1, EB2): gender, age, age_group and split of the faces in SOURCE = imdb_crop/.

    Images and imdb.mat: imdb_crop.tar of IMDB-WIKI (the faces of IMDb).

    Lists: see github.com/feidfoe/learning-not-to-learn, dataset/IMDB/README.md.
    """
    from lntl.makers import imdb_faces as maker

    data_table = maker.make(source, lists, train)
    write_table(out, source, data_table, f"imdb_faces/{train}")


@app.command("celeba")
def celeba(
    source: Source,
    out: Out,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Column to write; may be repeated. Default: Blond_Hair (label), Male (bias).",
        ),
    ] = None,
) -> None:
    """CelebA: attributes and split of the faces in SOURCE/img_align_celeba/.

    Source: the data set's page (MMLAB, CUHK) or Kaggle (jessicali9530/celeba-dataset).

    Files: img_align_celeba, list_attr_celeba and list_eval_partition; the lists as .txt or .csv.
    """
    from lntl.makers import celeba as maker

    write_table(out, source, maker.make(source, attribute or ["Blond_Hair", "Male"]), "celeba/blond_hair")


@app.command("utkface")
def utkface(
    source: Source,
    out: Out,
    train: Annotated[
        Literal["eb1", "eb2"], typer.Option(help="eb1: women of 0-29 years and men of 40 and more; eb2: the reverse.")
    ] = "eb1",
    held_out: HeldOut = 0.2,
    counterexamples: Counterexamples = 0,
    seed: Seed = 0,
) -> None:
    """UTKFace in the paper's protocol (EB1, EB2): gender, age, age_group, race and split of the faces below SOURCE.

    Images: the aligned and cropped faces of susanqq.github.io/UTKFace, named age_gender_race_date.jpg.
    """
    from lntl.makers import utkface as maker

    data_table = maker.make(source, train, held_out, counterexamples, seed)
    write_table(out, source, data_table, f"utkface/{train}")


@app.command("isic")
def isic(
    source: Source,
    out: Out,
    lists: Annotated[
        Path | None, typer.Option(help="Folder of the lists isic_annotated_train1.csv ...; default: SOURCE.")
    ] = None,
    trap_set: Annotated[int, typer.Option(min=1, max=5, help="Number of the trap set, 1 to 5.")] = 1,
) -> None:
    """ISIC 2018 in trap sets: diagnosis, split and seven artefacts, such as rulers, of the skin lesions below SOURCE.

    Images: the training images of ISIC 2018 Task 1-2 (challenge.isic-archive.com).

    Lists: github.com/alceubissoto/debiasing-skin, or its folder trap-sets.
    """
    from lntl.makers import isic as maker

    write_table(out, source, maker.make(source, lists or source, trap_set), "isic/ruler")


@app.command("bar")
def bar(source: Source, out: Out) -> None:
    """BAR (biased action recognition): action and split of the photographs in SOURCE/train/ and SOURCE/test/.

    Images: github.com/alinlab/BAR. The places, which are the bias, are not annotated.
    """
    from lntl.makers import bar as maker

    write_table(out, source, maker.make(source), "bar/lff")


@app.command("waterbirds")
def waterbirds(source: Source, out: Out) -> None:
    """Waterbirds: label, background and split of the images in SOURCE = waterbird_complete95_forest2water2/.

    Images and metadata.csv: waterbird_complete95_forest2water2.tar.gz, see github.com/kohpangwei/group_DRO.
    """
    from lntl.makers import waterbirds as maker

    write_table(out, source, maker.make(source), "waterbirds/background")


def write_table(out: Path, source: Path, data_table: "DatasetTable", config_name: str) -> None:
    """Write the table of a download; print its counts by split, label and bias, and the next command."""
    from collections import Counter

    from rich.table import Column, Table

    from lntl.cli import console
    from lntl.makers import tables
    from lntl.types import SPLITS

    tables.check_images(source, data_table)
    tables.write(out, data_table)
    columns = data_table.columns
    names = ["split", data_table.label, *([data_table.bias] if data_table.bias else [])]
    counts = Counter(zip(*(columns[name] for name in names), strict=True))
    table = Table(*names, Column("images", justify="right"))
    for values in sorted(counts, key=lambda values: (SPLITS.index(values[0]), values[1:])):
        table.add_row(*values, str(counts[values]))
    console.out.print(table)
    for note in data_table.notes:
        console.echo(note)
    console.echo(f"{out}: {len(columns['split'])} images")
    console.echo(f"Next: lntl train {config_name} data.path={out} data.root={source}")


def load_data(config_name: str, overrides: list[str]) -> "Dataset":
    """Return the data set of a configuration, of which only the section `data` must be complete."""
    from lntl import config as configuration
    from lntl import data

    config = configuration.read_for_data(config_name, overrides)
    return data.load(config.data.name, config.data)
