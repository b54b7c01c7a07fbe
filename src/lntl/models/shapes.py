"""What a model asks of the shape of the data."""

from lntl.errors import UserError
from lntl.types import DataSpec


def of_images(spec: DataSpec, model: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images; raises UserError where the data are vectors."""
    if len(spec.input_shape) != 3:
        raise UserError(f"model.name: {model} takes images, but the data are vectors {spec.input_shape}; take mlp")
    channels, height, width = spec.input_shape
    return channels, height, width
