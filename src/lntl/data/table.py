"""Your own images, listed in a table: CSV or Parquet, one row an image, with columns for label, bias and split."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from lntl.data import tabular
from lntl.data.biases import Biases, BiasSetting
from lntl.data.files import FileSettings, LabelledFiles, Paths
from lntl.data.labels import MISSING
from lntl.data.rows import Rows

__all__ = ["Table"]


class Table(LabelledFiles):
    """Image files listed in a table."""

    class Config(FileSettings):
        """Settings of `data`."""

        path: str = Field(min_length=1, description="The table: CSV (.csv, .tsv) or Parquet (.parquet).")
        image: str = Field("image", description="Column of the image files, relative to root.")
        label: str = Field("label", description="Column of the label; its values are the names of the classes.")
        bias: Biases = Field(
            min_length=1,
            description="Column of the bias; or a list of them, {column, bins} or {column, edges} for numbers, "
            "{from, bins} for what an image shows by itself.",
        )
        split: str | None = Field(
            None,
            description="Column with train, val or test; without it the splits are drawn, without any val that is.",
        )
        group_id: str | None = Field(
            None, description="Column whose equal values never lie in two splits, such as the patient."
        )
        root: str | None = Field(None, description="Folder of the images; null for that of the table.")
        delimiter: str | None = Field(
            None, min_length=1, max_length=1, description="Between the fields of CSV; null: a comma, a tab in .tsv."
        )
        missing: list[str] = Field([*MISSING], description="Texts that, as an empty field, stand for a missing value.")

        @property
        def biases(self) -> Sequence[BiasSetting]:
            """The settings of each bias."""
            return self.bias

    def __init__(self, config: "Table.Config") -> None:
        self.config = config
        path = Path(config.path)
        biases = [bias.column for bias in config.bias if bias.column is not None]
        names = [name for name in (config.label, config.split, config.group_id, *biases) if name is not None]
        table = tabular.read(path, config.image, names, config.missing, config.delimiter)
        rows = Rows(
            where=f"table {path}",
            unit=table.unit,
            number=table.number,
            label=table.columns[config.label],
            split=table.columns[config.split] if config.split is not None else None,
            group_id=table.columns[config.group_id] if config.group_id is not None else None,
            columns=table.columns,
        )
        faults = rows.faults()
        faults.add(
            table.ragged, "wrong number of fields", lambda row: f" ({table.ragged[row]}, the header has {table.width})"
        )
        root = path.parent if config.root is None else Path(config.root)
        paths = Paths(root, [name.strip() for name in table.plain])
        super().__init__(rows, paths, faults, config.bias, config)
