"""The setting `bias`: columns, numbers in bins, and biases computed from the images."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, Self

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, create_model, model_validator
from torch import Tensor

from lntl.data.labels import Column, bin_numbers
from lntl.errors import UserError
from lntl.plugins import Settings, did_you_mean


def _quotes_hint(value: bool | int | float) -> str:
    return f'the name of a column in quotes, "{str(value).lower()}"'


def _check_name(value: object) -> object:
    if isinstance(value, bool | int | float):
        raise ValueError(_quotes_hint(value))
    return value


# YAML reads a column name such as 0 or yes as a number or bool unless it is quoted.
ColumnName = Annotated[str, BeforeValidator(_check_name)]


class Images(Protocol):
    """n images from which a bias is computed."""

    def __len__(self) -> int: ...

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W)."""
        ...

    def file_sizes(self) -> Tensor:
        """Return the size of each image's file in bytes, float64 (n,)."""
        ...


class _Bias(Settings):
    """One bias: a column (of categories, or of numbers in bins), or a number computed from the image."""

    model_config = ConfigDict(title="Bias")

    column: ColumnName | None = Field(None, description="Column of the bias.")
    bins: int | None = Field(None, ge=2, le=10_000, description="Bins of equal counts for a bias in numbers.")
    edges: list[float] | None = Field(
        None, min_length=1, description="Instead of bins: the numbers at which a new bin begins, ascending."
    )

    @property
    def computed(self) -> str | None:
        """The function that computes the bias from an image."""
        name: str | None = self.model_dump()["from"]  # `from` is a Python keyword and cannot be an attribute name
        return name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.column is None) == (self.computed is None):
            raise ValueError("a bias with either column or from")
        if self.bins is not None and self.edges is not None:
            raise ValueError("a bias with either bins or edges, not both")
        if self.computed is not None and self.bins is None and self.edges is None:
            raise ValueError(f"a bias with bins or edges, because {self.computed} is a number")
        if self.edges is not None and sorted(set(self.edges)) != self.edges:
            raise ValueError("a bias whose edges ascend")
        return self


_FROM = Field(
    None,
    description="Instead of a column, the measure that is computed from the image: brightness, center_brightness, "
    "color, background, size, or the dotted name of your own function of an image.",
)
BiasSetting: type[_Bias] = create_model("BiasSetting", __base__=_Bias, **{"from": (str | None, _FROM)})  # type: ignore[call-overload]


def _to_list(raw: Any) -> Any:
    """Return a list of biases from the short forms null, a column name, one bias, or a list of names and biases."""
    biases = raw if isinstance(raw, list) else [] if raw is None else [raw]
    for bias in biases:
        if not isinstance(bias, str | dict | BiasSetting):
            hint = f"{_quotes_hint(bias)}, " if isinstance(bias, bool | int | float) else ""
            raise ValueError(
                f"{hint}a column's name, {{column, bins}}, {{column, edges}} or {{from, bins}}, a list of these, or []"
            )
    return [{"column": bias} if isinstance(bias, str) else bias for bias in biases]


_Short = str | BiasSetting | list[str | BiasSetting]


def _check_distinct(biases: list[_Bias]) -> list[_Bias]:
    """Return the biases; raises ValueError if a bias is listed twice."""
    names = [bias.column or bias.computed for bias in biases]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"a list of different biases; {repeated[0]!r} is listed twice")
    return biases


Biases = Annotated[
    list[BiasSetting],
    BeforeValidator(_to_list, json_schema_input_type=_Short),
    AfterValidator(_check_distinct),
]


def bias_columns(settings: Sequence[BiasSetting], columns: Mapping[str, Column], images: Images | None) -> list[Column]:
    """Return the column of each bias for rows without faults; `images` are the images of these rows, if any."""
    biases: list[Column] = []
    for setting in settings:
        name = setting.column
        if name is None:
            biases += _measured_columns(setting, images)
        elif setting.bins or setting.edges:
            biases.append(bin_numbers(name, columns[name].numbers()[0], setting.bins, setting.edges))
        else:
            biases.append(columns[name])
    return biases


def _measured_columns(setting: BiasSetting, images: Images | None) -> list[Column]:
    name = setting.computed
    assert name is not None
    if images is None:
        raise UserError(f"there are no images from which the bias {name} could be computed; name a column or array")
    numbers = measure(name, images).numpy().T
    return [bin_numbers(part, x, setting.bins, setting.edges) for part, x in zip(parts(name), numbers, strict=True)]


BATCH_SIZE = 256  # images that are measured at a time
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue. Source: Rec. ITU-R BT.601
# Exceptions that a user's function may raise and that are reported as UserError.
_USER_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError)
FRAME_RATIO = 16  # ratio of the side to the width of the frame that counts as background


def brightness(images: Tensor) -> Tensor:
    """Return the mean luma of each image (N, 3, H, W) uint8: (N, 1) in [0, 1]."""
    return color(images) @ torch.tensor(LUMA, dtype=torch.float64)[:, None]


def center_brightness(images: Tensor) -> Tensor:
    """Return the mean luma of the central half of each side of images (N, 3, H, W), usually the object: (N, 1)."""
    height, width = images.shape[2:]
    top, left = height // 4, width // 4
    return brightness(images[:, :, top : height - top, left : width - left])


def color(images: Tensor) -> Tensor:
    """Return the mean red, green and blue of each image (N, 3, H, W) uint8: (N, 3) in [0, 1]."""
    return images.double().mean(dim=(2, 3)) / 255


def background(images: Tensor) -> Tensor:
    """Return the mean red, green and blue of the frame of images (N, 3, H, W), outside of a central object: (N, 3)."""
    height, width = images.shape[2:]
    frame = torch.ones(height, width, dtype=torch.bool)
    edge = max(1, min(height, width) // FRAME_RATIO)
    frame[edge : height - edge, edge : width - edge] = False
    return images[:, :, frame].double().mean(dim=2) / 255


PIXEL_MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function for function in (background, brightness, center_brightness, color)
}
MEASURES = (*PIXEL_MEASURES, "size")


def parts(name: str) -> tuple[str, ...]:
    """Return the names of the numbers of a computed bias; a user's function returns one number."""
    if name in ("color", "background"):
        return tuple(f"{name} {channel}" for channel in ("red", "green", "blue"))
    return (name,)


def measure(name: str, images: Images) -> Tensor:
    """Return the numbers of each image as float64 (n, len(parts(name))).

    `size` is the size of the file in bytes. The other measures use the pixels that evaluation uses. A dotted name is
    a user's function from one image (H, W, 3) uint8 to a number. Raises UserError with the most similar valid name.
    """
    if name == "size":
        return images.file_sizes()[:, None]
    function = PIXEL_MEASURES[name] if name in PIXEL_MEASURES else _to_batch_function(_user_function(name), name)
    return torch.cat([function(images.pixels(index)) for index in torch.arange(len(images)).split(BATCH_SIZE)])


def _user_function(name: str) -> Callable[[np.ndarray], object]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"data.bias.from: {name!r} is not one of the computed biases{did_you_mean(name, MEASURES)}")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"data.bias.from: cannot load {name!r}: {error}; is its folder in PYTHONPATH?") from error
    if not callable(function):
        raise UserError(
            f"data.bias.from: {name!r} is not a function; it must take an image (H, W, 3) and return a number"
        )
    return function  # type: ignore[no-any-return]


def _to_batch_function(function: Callable[[np.ndarray], object], name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of one image as a function of a batch."""

    def measure_batch(images: Tensor) -> Tensor:
        return torch.tensor(
            [[measure_image(image.numpy())] for image in images.permute(0, 2, 3, 1)], dtype=torch.float64
        )

    def measure_image(image: np.ndarray) -> float:
        try:
            value = function(image)
        except _USER_ERRORS as error:
            reason = f"{name} raised {type(error).__name__}: {error}; --debug shows the traceback"
            raise UserError(f"data.bias.from: {reason}") from error
        if not isinstance(value, int | float | np.number | np.bool_) or not np.isfinite(value):
            raise UserError(f"data.bias.from: {name} returned {value!r} for an image; it must return a finite number")
        return float(value)

    return measure_batch
