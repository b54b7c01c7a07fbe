"""Change the brightness or the color of test images in steps, and count how many predictions change.

The counterpart of recolouring for photographs, whose bias values cannot be exchanged: what is computed from an image,
such as its brightness, can be changed in it.
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

STEPS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)  # on the scale where 1 is the step from black to white
MOST = 500  # images: the interval of a flip rate of 20 % is then 3.5 points either way
STRIP = 4  # images to show at every step
_SEED = 0  # of the choice of images and of the bootstrap: the same for every run, so that runs compare
# Added to red, green and blue for a shift of 1. A cast leaves the mean over the channels as it is.
DIRECTIONS = {
    "brightness": (1.0, 1.0, 1.0),
    "red cast": (1.0, -0.5, -0.5),
    "green cast": (-0.5, 1.0, -0.5),
    "blue cast": (-0.5, -0.5, 1.0),
}
_CASTS = ("red cast", "green cast", "blue cast")
# What is changed for each bias that is computed from an image: a part of it is never changed alone, which would draw an
# edge into the image.
SHIFTS = {
    "brightness": ("brightness",),
    "center_brightness": ("brightness",),
    "color": _CASTS,
    "background": _CASTS,
}


def check_images(data: Dataset, directions: Sequence[str]) -> tuple[ImageSplit, EvalTransform] | None:
    """Return the test images and their transform, None where nothing is to be changed.

    Raises:
        UserError: If the test examples are no images.
    """
    split, transform = data.splits["test"], data.transform
    if not directions:
        return None
    if not isinstance(split, ImageSplit) or not isinstance(transform, EvalTransform) or len(transform.shape) != 3:
        raise UserError("--shift: the test examples are no images, so they have no brightness or color; leave it out")
    return split, transform


def chosen_shifts(names: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return what to change: what the user names, else what belongs to the biases that are computed from the images.

    Args:
        names: Names that the user gives.
        settings: The section `data` of the configuration.

    Raises:
        UserError: If a name is unknown.
    """
    for name in names:
        if name not in SHIFTS:
            raise UserError(f"--shift {name}: that cannot be changed in an image{did_you_mean(name, list(SHIFTS))}")
    biases = settings.biases if isinstance(settings, LabelSettings) else ()
    chosen = names or [bias.computed for bias in biases if bias.computed in SHIFTS]
    return tuple(dict.fromkeys(direction for name in chosen for direction in SHIFTS[name]))


def shift_images(subject: Subject, directions: Sequence[str]) -> tuple[ImageShift, dict[str, Tensor]] | None:
    """Change some test images in each direction in steps; return how predictions change, and the arrays of a strip.

    Args:
        subject: The checkpoint, ERM beside it, and the test images.
        directions: Names in DIRECTIONS; None is returned if there are none.

    Returns:
        content: The content of image_shift.json.
        strip: Some images at every shift, x (curves, m, shifts, 3, H, W) uint8 with the shifts ascending and 0 among
            them, their predicted classes (curves, m, shifts), and their classes y (m,).

    Raises:
        UserError: If the test examples are no images.
    """
    images = check_images(subject.experiment.data, directions)
    if images is None:
        return None
    split, transform = images
    log.info("other %s", ", ".join(directions))
    index = subject.index[permutation(len(subject.index), derive(_SEED, "shift"))[:MOST]].sort().values
    y, strip = split.y.cpu()[index], permutation(len(index), derive(_SEED, "shift strip"))[:STRIP].sort().values
    pixels = split.pixels(index[strip].to(split.y.device)).cpu()
    curves, pictures, shown = [], [], []
    for direction in directions:
        curve, predicted = _curve(subject, split, transform, index, direction)
        changed = ((255 * shifted(pixels, direction, shift)).round().to(torch.uint8) for shift in _SHIFTS)
        curves.append(curve)
        pictures.append(torch.stack([thumbnails(step) for step in changed], dim=1))
        shown.append(predicted[strip])
    content = ImageShift(checkpoint=str(subject.path), epoch=subject.epoch, n=len(index), curves=curves)
    return content, {"x": torch.stack(pictures), "predicted": torch.stack(shown), "y": y[strip]}


_SHIFTS = sorted((0.0, *STEPS))
_NONE = _SHIFTS.index(0.0)


def shifted(pixels: Tensor, direction: str, shift: float) -> Tensor:
    """Return images (N, 3, H, W) uint8, changed by `shift` in a direction, as float32 cut to [0, 1]."""
    change = shift * torch.tensor(DIRECTIONS[direction], device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 + change).clamp(0, 1)


def _curve(
    subject: Subject, split: ImageSplit, transform: EvalTransform, index: Tensor, direction: str
) -> tuple[ShiftCurve, Tensor]:
    """Return how predictions for the test images at `index` change, and the run's predicted classes (n, shifts)."""
    values, run, erm = [], [], []
    for part in index.to(split.y.device).split(subject.batch_size):
        pixels = split.pixels(part).cpu()
        values.append(measure(pixels, direction))
        x = [_network_input(transform, shifted(pixels, direction, shift)) for shift in _SHIFTS]
        run.append(_predict(subject.networks, x))
        if subject.erm is not None:
            erm.append(_predict(subject.erm, x))
    y, predicted = split.y.cpu()[index], torch.cat(run)
    plain = torch.cat(erm) if erm else None
    steps = [
        ShiftStep(
            shift=shift,
            flip_rate=_flip_rate(predicted, column),
            accuracy=_accuracy(predicted[:, column], y),
            erm_flip_rate=None if plain is None else _flip_rate(plain, column),
            erm_accuracy=None if plain is None else _accuracy(plain[:, column], y),
        )
        for column, shift in enumerate(_SHIFTS)
        if column != _NONE
    ]
    spread = float(torch.cat(values).std(correction=0))
    return ShiftCurve(name=direction, spread=spread, steps=steps), predicted


def measure(pixels: Tensor, direction: str) -> Tensor:
    """Return of each image (N, 3, H, W) uint8 the number that a shift of 1 raises by 1, float64 (N,).

    That is the mean luma for the brightness, and for a cast how far the mean of its channel is above that of all.
    """
    mean = color(pixels)
    if direction == "brightness":
        return mean @ torch.tensor(LUMA, dtype=torch.float64)
    return mean[:, _CASTS.index(direction)] - mean.mean(dim=1)


def _network_input(transform: EvalTransform, images: Tensor) -> Tensor:
    one_channel = transform.shape[0] == 1
    return transform(float_luma(images)[:, :1].contiguous() if one_channel else images)  # type: ignore[no-any-return]


@torch.inference_mode()
def _predict(networks: Networks, x: Sequence[Tensor]) -> Tensor:
    """Return the predicted classes of batches of the same images, one batch a shift, (N, shifts) on the CPU."""
    networks.eval()
    device = next(networks.parameters()).device
    columns = [networks.g(networks.f(step.to(device))).argmax(dim=1).cpu() for step in x]
    return torch.stack(columns, dim=1)


def _flip_rate(predicted: Tensor, column: int) -> Estimate:
    return mean_interval(predicted[:, column] != predicted[:, _NONE], _SEED)


def _accuracy(predicted: Tensor, y: Tensor) -> float:
    return float((predicted == y).double().mean())
