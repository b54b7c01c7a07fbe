"""TensorBoard: event files with curves, the data, the confusion matrix, z for the projector, and the settings.

The files are in tensorboard_logs/ of the run. Events are written in the thread of the caller, so that the caller gets
the error if the disk is full.
"""

import errno
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import summary
from torch.utils.tensorboard._utils import figure_to_image

from lntl import figures
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import confusion
from lntl.runs.files import make_write_error, write_atomic, write_text
from lntl.runs.folder import check_no_link
from lntl.text import one_line
from lntl.trackers import Embedding, TrackedRun, Tracker
from lntl.types import Dataset, ImageSplit

__all__ = ["TensorBoard"]

IMAGES_PER_CLASS, MAX_CLASSES = 10, 100  # images of each class, and largest number of classes, in the grid of images
_SETTINGS = ("project.seed", "data.", "model.", "training.")  # settings in which runs differ
_file_numbers = itertools.count()  # part of the names of event files, so that two files of the same second differ


class TensorBoard(Tracker):
    """The event file of a run, or of a part of it that was resumed."""

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        folder = run.folder.tensorboard
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
        self._folder, self._path = folder, folder / name
        try:
            folder.mkdir(exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
        except OSError as error:
            raise make_write_error(self._path, error) from error
        self._write_event(Event(file_version="brain.Event:2"))
        if run.training:  # from this step on, TensorBoard hides the values of earlier files
            step = run.step + 1 if run.step else 0
            self._write_event(Event(session_log=SessionLog(status=SessionLog.START), step=step))

    def _write_event(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            RecordWriter(self).write(event.SerializeToString())
        except OSError as error:
            self._file.close()
            raise make_write_error(self._path, error) from error

    def write(self, record: bytes) -> None:
        """Write a record; raises OSError if only a part of it was written, because then the disk is full."""
        if self._file.write(record) != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_summary(self, content: Summary, step: int) -> None:
        self._write_event(Event(summary=content, step=step))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log each value under its name."""
        for name, value in values.items():
            self._write_summary(summary.scalar(name, value), step)

    def data(self, data: Dataset) -> None:
        """Log ten images of each class of train and test, one row per class. Without images, log nothing."""
        from torchvision.utils import make_grid  # imported here: slow, and used once per run

        for name in ("train", "test"):
            split = data.splits[name]
            if isinstance(split, ImageSplit):
                grid = make_grid(
                    _select_first_images(split, min(data.spec.num_classes, MAX_CLASSES)), nrow=IMAGES_PER_CLASS
                )
                self._write_summary(summary.image(f"data/{name}", grid.numpy(), dataformats="CHW"), 0)

    def confusion(self, predictions: Predictions, class_names: tuple[str, ...], step: int) -> None:
        """Log the confusion matrix of val."""
        counts = {"val": confusion(predictions)}
        image = figure_to_image(figures.confusion_matrices(counts, class_names))
        self._write_summary(summary.image("val/confusion_matrix", image, dataformats="CHW"), step)

    def features(self, embed: Callable[[], Embedding], step: int) -> None:
        """Log features of test images for the projector."""
        self._write_projector(*embed(), step)

    def _write_projector(self, z: Tensor, labels: Sequence[tuple[str, str]], images: Tensor | None, step: int) -> None:
        """Write vectors (n, D), their classes and bias values, and uint8 images (n, C, H, W) as one sprite image."""
        from torchvision.transforms.functional import to_pil_image
        from torchvision.utils import make_grid

        subfolder = f"{step:05d}/z"
        for folder in (self._folder / subfolder).parent, self._folder / subfolder:
            check_no_link(folder)
        try:
            (self._folder / subfolder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise make_write_error(self._folder / subfolder, error) from error
        tensors, metadata, sprite = (f"{subfolder}/{name}" for name in ("tensors.tsv", "metadata.tsv", "sprite.png"))
        write_text(self._folder / tensors, "".join("\t".join(map(str, row)) + "\n" for row in z.tolist()))
        table = [("class", "bias"), *labels]
        write_text(self._folder / metadata, "".join("\t".join(map(one_line, row)) + "\n" for row in table))
        config = ProjectorConfig()
        entry = config.embeddings.add(tensor_name=f"z:{step:05d}", tensor_path=tensors, metadata_path=metadata)
        if images is not None:
            side = int((len(images) - 1) ** 0.5) + 1  # the sprite is a square grid of images
            blank = images.new_zeros((side * side - len(images), *images.shape[1:]))
            image = to_pil_image(make_grid(torch.cat([images, blank]), nrow=side, padding=0))
            write_atomic(self._folder / sprite, lambda file: image.save(file, format="PNG"))
            entry.sprite.image_path = sprite
            entry.sprite.single_image_dim.extend([images.shape[3], images.shape[2]])
        write_text(self._folder / "projector_config.pbtxt", str(config))

    def results(self, scores: Mapping[str, float], step: int) -> None:
        """Log the settings and the final metrics: a row of the table of runs.

        The columns of the table are the union over runs, so that runs of different methods can be compared.
        """
        values = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in self.run.settings.items()
            if name.startswith(_SETTINGS)
        }
        # The first value is not used, because it would limit the columns to those of one run.
        _, begin, end = summary.hparams(values, dict(scores))
        self._write_summary(begin, 0)
        self._write_summary(end, 0)
        self.scalars(scores, 0)

    def close(self, finished: bool) -> None:
        """Close the file."""
        self._file.close()


def _select_first_images(split: ImageSplit, num_classes: int) -> Tensor:
    """Return the first images of each class, uint8 (classes * IMAGES_PER_CLASS, C, H, W); missing images are black."""
    blank = torch.zeros_like(split.pixels(torch.zeros(1, dtype=torch.int64))).repeat(IMAGES_PER_CLASS, 1, 1, 1)
    rows = []
    for label in range(num_classes):
        index = torch.nonzero(split.y == label)[:IMAGES_PER_CLASS, 0]
        rows.append(torch.cat([split.pixels(index), blank])[:IMAGES_PER_CLASS] if len(index) else blank)
    return torch.cat(rows)
