"""Change the brightness or the color of test images in steps, and count how many predictions change.

It replaces recoloring for photographs. The bias value of a photograph cannot be exchanged, but a bias that is computed
from the image, such as its brightness, can be changed in the image.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from lntl.data.biases import LUMA, color
from lntl.data.eval_transform import EvalTransform
from lntl.data.rows import LabelSettings
from lntl.data.transforms import float_luma, thumbnails
from lntl.errors import UserError
from lntl.plugins import Settings, did_you_mean
from lntl.probing.leakage import Subject
from lntl.probing.recoloring import mean_interval
from lntl.runs.formats import Estimate, ImageShift, ShiftCurve, ShiftStep
from lntl.seeding import derive, permutation
from lntl.types import Dataset, ImageSplit, Networks

log = logging.getLogger("lntl")

STEPS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)  # shifts of pixel values between 0 (black) and 1 (white)
_STEPS_AND_ZERO = sorted((0.0, *STEPS))
_ZERO = _STEPS_AND_ZERO.index(0.0)
MAX_IMAGES = 500  # the interval of a flip rate of 20 % is then 3.5 percentage points to each side
STRIP_SIZE = 4  # images that are shown at every step
_SEED = 0  # seed of the choice of images and of the bootstrap; the same for all runs, so that runs can be compared
# What a shift of 1 adds to red, green and blue. A cast does not change the mean over the channels.
DIRECTIONS = {
    "brightness": (1.0, 1.0, 1.0),
    "red cast": (1.0, -0.5, -0.5),
    "green cast": (-0.5, 1.0, -0.5),
    "blue cast": (-0.5, -0.5, 1.0),
}
_CASTS = ("red cast", "green cast", "blue cast")
# The directions for each bias that is computed from an image. The whole image is changed even if the bias is computed
# from a part of it, because changing only this part would draw an edge.
SHIFTS = {
    "brightness": ("brightness",),
    "center_brightness": ("brightness",),
    "color": _CASTS,
    "background": _CASTS,
}


def check_images(data: Dataset, directions: Sequence[str]) -> tuple[ImageSplit, EvalTransform] | None:
    """Return the test images and their transform, None if there are no directions.

    Raises:
        UserError: If the test examples are not images.
    """
    split, transform = data.splits["test"], data.transform
    if not directions:
        return None
    if not isinstance(split, ImageSplit) or not isinstance(transform, EvalTransform) or len(transform.shape) != 3:
        raise UserError(
            "--shift: the test examples are not images, so they have no brightness or color; leave --shift out"
        )
    return split, transform


def select_directions(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return the directions of the named shifts; without names, those of the biases that are computed from the images.

    Args:
        names: Names that the user gives.
        settings: The section `data` of the configuration.

    Raises:
        UserError: If a name is unknown.
    """
    for name in names:
        if name not in SHIFTS:
            raise UserError(f"--shift {name}: this cannot be changed in an image{did_you_mean(name, list(SHIFTS))}")
    biases = settings.biases if isinstance(settings, LabelSettings) else ()
    names = names or [bias.computed for bias in biases if bias.computed in SHIFTS]
    return tuple(dict.fromkeys(direction for name in names for direction in SHIFTS[name]))


def shift_images(subject: Subject, directions: Sequence[str]) -> tuple[ImageShift, dict[str, Tensor]] | None:
    """Change some test images in each direction in steps; return how predictions change, and the arrays of a strip.

    Args:
        subject: The checkpoint, the networks of ERM, and the test images.
        directions: Names in DIRECTIONS; without directions, None is returned.

    Returns:
        content: The content of image_shift.json.
        strip: Some images at every shift, x (curves, m, shifts, 3, H, W) uint8; their predicted classes
            (curves, m, shifts); and their classes y (m,). Shifts are ascending and include 0.

    Raises:
        UserError: If the test examples are not images.
    """
    images = check_images(subject.experiment.data, directions)
    if images is None:
        return None
    split, transform = images
    log.info("shifts of %s", ", ".join(directions))
    index = subject.index[permutation(len(subject.index), derive(_SEED, "shift"))[:MAX_IMAGES]].sort().values
    y, strip = split.y.cpu()[index], permutation(len(index), derive(_SEED, "shift strip"))[:STRIP_SIZE].sort().values
    pixels = split.pixels(index[strip].to(split.y.device)).cpu()
    curves, images_by_curve, predicted_by_curve = [], [], []
    for direction in directions:
        curve, predicted = _measure_curve(subject, split, transform, index, direction)
        steps = ((255 * shift_pixels(pixels, direction, shift)).round().to(torch.uint8) for shift in _STEPS_AND_ZERO)
        curves.append(curve)
        images_by_curve.append(torch.stack([thumbnails(step) for step in steps], dim=1))
        predicted_by_curve.append(predicted[strip])
    content = ImageShift(checkpoint=str(subject.path), epoch=subject.epoch, n=len(index), curves=curves)
    return content, {"x": torch.stack(images_by_curve), "predicted": torch.stack(predicted_by_curve), "y": y[strip]}


def shift_pixels(pixels: Tensor, direction: str, shift: float) -> Tensor:
    """Shift images (N, 3, H, W) uint8 in a direction; return float32 values, clipped to [0, 1]."""
    change = shift * torch.tensor(DIRECTIONS[direction], device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 + change).clamp(0, 1)


def _measure_curve(
    subject: Subject, split: ImageSplit, transform: EvalTransform, index: Tensor, direction: str
) -> tuple[ShiftCurve, Tensor]:
    """Return how predictions for the test images at `index` change, and the run's predicted classes (n, shifts)."""
    measures, run, erm = [], [], []
    for part in index.to(split.y.device).split(subject.batch_size):
        pixels = split.pixels(part).cpu()
        measures.append(measure(pixels, direction))
        x = [_make_network_input(transform, shift_pixels(pixels, direction, shift)) for shift in _STEPS_AND_ZERO]
        run.append(_predict(subject.networks, x))
        if subject.erm is not None:
            erm.append(_predict(subject.erm, x))
    y, predicted = split.y.cpu()[index], torch.cat(run)
    erm_predicted = torch.cat(erm) if erm else None
    steps = [
        ShiftStep(
            shift=shift,
            flip_rate=_flip_rate(predicted, column),
            accuracy=_compute_accuracy(predicted[:, column], y),
            erm_flip_rate=None if erm_predicted is None else _flip_rate(erm_predicted, column),
            erm_accuracy=None if erm_predicted is None else _compute_accuracy(erm_predicted[:, column], y),
        )
        for column, shift in enumerate(_STEPS_AND_ZERO)
        if column != _ZERO
    ]
    spread = float(torch.cat(measures).std(correction=0))
    return ShiftCurve(name=direction, spread=spread, steps=steps), predicted


def measure(pixels: Tensor, direction: str) -> Tensor:
    """Return for each image (N, 3, H, W) uint8 the number that a shift of 1 increases by 1, float64 (N,).

    For the brightness it is the mean luma. For a cast it is the mean of its channel minus the mean of all channels.
    """
    mean = color(pixels)
    if direction == "brightness":
        return mean @ torch.tensor(LUMA, dtype=torch.float64)
    return mean[:, _CASTS.index(direction)] - mean.mean(dim=1)


def _make_network_input(transform: EvalTransform, images: Tensor) -> Tensor:
    one_channel = transform.shape[0] == 1
    return transform(float_luma(images)[:, :1].contiguous() if one_channel else images)  # type: ignore[no-any-return]


@torch.inference_mode()
def _predict(networks: Networks, x: Sequence[Tensor]) -> Tensor:
    """Return the predicted classes of batches of the same images, one batch for each shift, (N, shifts) on the CPU."""
    networks.eval()
    device = next(networks.parameters()).device
    columns = [networks.g(networks.f(step.to(device))).argmax(dim=1).cpu() for step in x]
    return torch.stack(columns, dim=1)


def _flip_rate(predicted: Tensor, column: int) -> Estimate:
    return mean_interval(predicted[:, column] != predicted[:, _ZERO], _SEED)


def _compute_accuracy(predicted: Tensor, y: Tensor) -> float:
    return float((predicted == y).double().mean())
