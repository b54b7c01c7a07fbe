"""Networks f, g and h, one architecture a file, and the heads they share."""

from lntl import plugins
from lntl.errors import UserError
from lntl.types import DataSpec, Networks


def load_model(name: str) -> type[Networks]:
    """Return a model's class by its name, or by the dotted name of a class of the user's own."""
    return plugins.load("lntl.models", name, Networks)


def image_shape(spec: DataSpec, model: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images; raises UserError where the data are vectors."""
    if len(spec.input_shape) != 3:
        raise UserError(f"model.name: {model} takes images, but the data are vectors {spec.input_shape}; take mlp")
    channels, height, width = spec.input_shape
    return channels, height, width
