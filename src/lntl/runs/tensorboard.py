"""TensorBoard event files of a run."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Scalars against updates of the whole run, and pictures; after a resume, what was logged beyond it is hidden."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log each value under its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, name: str, images: Tensor, columns: int) -> None:
        """Log uint8 images (N, C, H, W) as one grid."""
        from torchvision.utils import make_grid  # here, for it is slow to import and used once a run

        self._writer.add_image(name, make_grid(images, nrow=columns), 0)

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()
