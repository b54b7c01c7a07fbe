"""TensorBoard event files of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lntl.errors import UserError


class TensorBoard:
    """Scalars against updates of the whole run, and pictures; after a resume, what was logged beyond it is hidden."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log each value under its name."""
        try:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot write: {error}; is the disk full?") from error

    def pictures(self, name: str, images: Tensor, columns: int) -> None:
        """Log uint8 images (N, C, H, W) as one grid."""
        from torchvision.utils import make_grid  # here, for it is slow to import and used once a run

        self._writer.add_image(name, make_grid(images, nrow=columns), 0)

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Log a matplotlib figure as a picture."""
        self._writer.add_figure(name, figure, step)

    def embedding(
        self, name: str, vectors: Tensor, labels: Mapping[str, Sequence[str]], images: Tensor | None, step: int
    ) -> None:
        """Log vectors (n, D) for the projector, each with its labels and, where there are some, its uint8 image."""
        sprites = None if images is None else images.float() / 255
        rows = [list(row) for row in zip(*labels.values(), strict=True)]
        self._writer.add_embedding(vectors, rows, sprites, step, name, metadata_header=list(labels))

    def hyperparameters(self, values: Mapping[str, bool | float | str], results: Mapping[str, float]) -> None:
        """Log what the run was set to and what came out of it, one row of the table over runs."""
        writer: Any = self._writer.file_writer
        for summary in hparams(dict(values), dict(results)):
            writer.add_summary(summary)
        for name, result in results.items():
            self._writer.add_scalar(name, result, 0)

    def flush(self) -> None:
        """Write what is pending."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
