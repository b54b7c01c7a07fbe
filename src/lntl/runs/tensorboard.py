"""TensorBoard event files of a run."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

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

    def flush(self) -> None:
        """Write what is pending."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()
