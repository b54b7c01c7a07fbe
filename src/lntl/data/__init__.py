"""Data sets, one plug-in per file, and the loader that makes batches of them."""

from lntl import plugins
from lntl.errors import UserError
from lntl.types import SPLITS, Dataset, Split


def load(name: str, settings: plugins.Settings) -> Dataset:
    """Return the data set of a plug-in.

    Args:
        name: A file in lntl/data, or the dotted name of a user's own class.
        settings: An instance of the plug-in's `Config`.

    Raises:
        UserError: If the plug-in is not a `Dataset`, or a split is missing.
    """
    try:
        plugin = plugins.load("lntl.data", name, Dataset)  # type: ignore[type-abstract]
    except UserError as error:
        raise UserError(f"data.name: {error}") from error
    dataset = plugin(settings)
    try:
        splits, _ = dataset.splits, dataset.spec
    except AttributeError as error:
        raise UserError(f"data.name: {name}: {error}; its __init__ must set self.splits and self.spec") from error
    for split in SPLITS:
        if split not in splits:
            raise UserError(f"data.name: {name} has no split {split}; self.splits must hold {', '.join(SPLITS)}")
        if not isinstance(splits[split], Split):
            raise UserError(
                f"data.name: the {split} split of {name} is a {type(splits[split]).__name__}; derive its class from "
                "lntl.types.Split, or lntl.types.ImageSplit"
            )
    return dataset
