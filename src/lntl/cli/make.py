"""Commands that write data to a file: rendered images, or the table of a download."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import ConfigArgument, Overrides

app = typer.Typer(
    help="Write a data set to a file: Colored MNIST as arrays, or the table of a public data set that you downloaded. "
    "Nothing is downloaded, and no image is copied.",
    epilog="docs/DATA_SETS.md: where each data set comes from, under which terms.",
    no_args_is_help=True,
)
Source = Annotated[Path, typer.Argument(metavar="SOURCE", readable=False, help="Folder of the unpacked download.")]
Out = Annotated[Path, typer.Argument(metavar="OUT.csv", help="Table to write, for data: {name: table}.")]


class Pets(StrEnum):
    """Training sets of Dogs and Cats."""

    tb1 = "tb1"
    tb2 = "tb2"


class Faces(StrEnum):
    """Training sets of IMDB faces."""

    eb1 = "eb1"
    eb2 = "eb2"


@app.command("colored_mnist")
def colored_mnist(
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="File to write.")],
    config: ConfigArgument = "colored_mnist_default",
    overrides: Overrides = None,
) -> None:
    """Write the rendered images, labels and colors of every split to an .npz file."""
    from lntl import describe

    describe.make_data(out, config, overrides or [])


@app.command("dogs_and_cats")
def dogs_and_cats(
    source: Source,
    out: Out,
    train: Annotated[Pets, typer.Option(help="tb1: bright dogs and dark cats; tb2: the reverse.")] = Pets.tb1,
    lists: Annotated[
        Path | None, typer.Option(help="Folder of list_bright.txt and list_dark.txt; default: SOURCE.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of that set that is for test, beside all of the other set.")
    ] = 0.2,
) -> None:
    """Dogs and Cats of the paper (TB1, TB2): label, color and split of the photographs in SOURCE/train/.

    Images: train.zip of Kaggle's competition dogs-vs-cats-redux-kernels-edition (or dogs-vs-cats).

    Lists: github.com/feidfoe/learning-not-to-learn, dataset/dogs_and_cats.
    """
    from lntl import describe
    from lntl.makers import dogs_and_cats as maker

    made = maker.make(source, lists or source, train.value, held_out)
    describe.made_table(out, source, made, f"dogs_and_cats/{train.value}")


@app.command("imdb_faces")
def imdb_faces(
    source: Source,
    out: Out,
    train: Annotated[
        Faces, typer.Option(help="eb1: women of 0-29 years and men of 40 and more; eb2: the reverse.")
    ] = Faces.eb1,
    lists: Annotated[
        Path | None, typer.Option(help="Folder of the authors' four .npy files; default: imdb.mat says who is where.")
    ] = None,
) -> None:
    """IMDB faces of the paper (EB1, EB2): gender, age, age_group and split of the faces in SOURCE = imdb_crop/.

    Images and imdb.mat: imdb_crop.tar of IMDB-WIKI (the faces of IMDb).

    Lists: named in github.com/feidfoe/learning-not-to-learn, dataset/IMDB/README.md.
    """
    from lntl import describe
    from lntl.makers import imdb_faces as maker

    made = maker.make(source, lists, train.value)
    describe.made_table(out, source, made, f"imdb_faces/{train.value}")


@app.command("celeba")
def celeba(
    source: Source,
    out: Out,
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column to write; repeat it. Default: Blond_Hair (label), Male (bias)."),
    ] = None,
) -> None:
    """CelebA: attributes and split of the faces in SOURCE/img_align_celeba/.

    From the data set's page (MMLAB, CUHK) or Kaggle (jessicali9530/celeba-dataset).

    Wanted: img_align_celeba, list_attr_celeba and list_eval_partition, these as .txt or .csv.
    """
    from lntl import describe
    from lntl.makers import celeba as maker

    describe.made_table(out, source, maker.make(source, attribute or ["Blond_Hair", "Male"]), "celeba/blond_hair")


@app.command("waterbirds")
def waterbirds(source: Source, out: Out) -> None:
    """Waterbirds: label, background and split of the images in SOURCE = waterbird_complete95_forest2water2/.

    Images and metadata.csv: waterbird_complete95_forest2water2.tar.gz, see github.com/kohpangwei/group_DRO.
    """
    from lntl import describe
    from lntl.makers import waterbirds as maker

    describe.made_table(out, source, maker.make(source), "waterbirds/background")
