"""The setting `bias`: columns, numbers in bins, and biases that an image shows by itself."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, create_model, model_validator

from lntl.data.computed import measure, parts
from lntl.data.faults import Faults
from lntl.data.labels import Column, binned
from lntl.plugins import Settings


class _Bias(Settings):
    """One bias: a column (of categories, or of numbers in bins), or what a function finds in the image."""

    model_config = ConfigDict(title="Bias")

    column: str | None = Field(None, description="Column of the bias.")
    bins: int | None = Field(None, ge=2, le=10_000, description="Bins of equal counts for a bias in numbers.")
    edges: list[float] | None = Field(
        None, min_length=1, description="In place of bins: the numbers at which a new bin begins, ascending."
    )

    @property
    def computed(self) -> str | None:
        """The function that finds the bias in an image."""
        name: str | None = getattr(self, "from")
        return name

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.column is None) == (self.computed is None):
            raise ValueError("a bias with either column or from")
        if self.bins is not None and self.edges is not None:
            raise ValueError("a bias with either bins or edges, not both")
        if self.computed is not None and self.bins is None and self.edges is None:
            raise ValueError(f"put into bins, for {self.computed} is a number: give bins or edges")
        if self.edges is not None and sorted(set(self.edges)) != self.edges:
            raise ValueError("a bias whose edges ascend")
        return self


_FROM = Field(
    None,
    description="In place of a column, what an image shows by itself: brightness, color, background, size, or the "
    "dotted name of your own function of an image.",
)
BiasSetting: type[_Bias] = create_model("BiasSetting", __base__=_Bias, **{"from": (str | None, _FROM)})  # type: ignore[call-overload]


def _as_list(raw: Any) -> Any:
    """Return the short forms written out: a name, one bias, or a list of both."""
    listed = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(each, str | dict | BiasSetting) for each in listed):
        raise ValueError("a column's name, {column, bins}, {column, edges} or {from, bins}, or a list of these")
    return [{"column": each} if isinstance(each, str) else each for each in listed]


_Short = str | BiasSetting | list[str | BiasSetting]


def _told_apart(biases: list[_Bias]) -> list[_Bias]:
    """Return the biases; raises ValueError where one is there twice."""
    names = [bias.column or bias.computed for bias in biases]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"biases that differ; {twice[0]!r} is there twice")
    return biases


Biases = Annotated[
    list[BiasSetting],
    BeforeValidator(_as_list, json_schema_input_type=_Short),
    AfterValidator(_told_apart),
]


def check_numbers(settings: Sequence[Any], columns: dict[str, Column], faults: Faults) -> None:
    """Note the rows whose bias is to be put into bins and is no number."""
    for setting in settings:
        if setting.column is not None and (setting.bins or setting.edges):
            column = columns[setting.column]
            faults.add(
                np.flatnonzero(column.numbers()[1]).tolist(),
                f"{setting.column} is no number",
                lambda row, column=column: f": {column.text(row)!r}",  # type: ignore[misc]
            )


def columns_of(settings: Sequence[Any], columns: dict[str, Column], source: Any) -> list[Column]:
    """Return the biases of rows without a fault; source: their images, with `pixels`, for what they show."""
    found: list[Column] = []
    for setting in settings:
        if setting.computed is not None:
            numbers = measure(setting.computed, source).numpy().T
            names = parts(setting.computed)
            found += [binned(name, x, setting.bins, setting.edges) for name, x in zip(names, numbers, strict=True)]
        elif setting.bins or setting.edges:
            found.append(binned(setting.column, columns[setting.column].numbers()[0], setting.bins, setting.edges))
        else:
            found.append(columns[setting.column])
    return found
