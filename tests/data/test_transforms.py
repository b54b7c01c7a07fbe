"""Cutting, mirroring and RandAugment, against torchvision and slow loops; each a function of (seed, place)."""

from itertools import pairwise, product
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from lntl.data import transforms
from lntl.data.image_settings import IMAGENET, ImageSettings
from lntl.data.transforms import augmented, empty, middle, normalise, window
from lntl.seeding import uniforms


def squares(count: int, side: int) -> Tensor:
    """Return random images (count, 3, side, side) uint8, channels last in memory, as they are stored."""
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2)


# --- settings ---


@pytest.mark.parametrize(("crop", "size", "stored"), [("none", 64, 64), ("shift", 224, 256), ("resized", 28, 32)])
def test_room_is_kept_where_a_crop_needs_it(crop: Any, size: int, stored: int) -> None:
    assert ImageSettings(crop=crop, size=size).stored == stored


def test_normalise_takes_a_name_or_numbers() -> None:
    assert ImageSettings().normalise == ImageSettings.model_validate({"normalise": "imagenet"}).normalise == IMAGENET
    own = {"mean": [0.5, 0.5, 0], "std": [1, 1, 0.25]}
    assert ImageSettings.model_validate({"normalise": own}).normalise.model_dump() == own


@pytest.mark.parametrize(
    "wrong", [{"mean": [0.5] * 3, "std": [0, 1, 1]}, {"mean": [0.5], "std": [1, 1, 1]}, "imagenette", 3]
)
def test_a_wrong_normalisation_is_one_fault(wrong: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ImageSettings.model_validate({"normalise": wrong})
    (fault,) = caught.value.errors()
    assert fault["loc"][0] == "normalise"
    assert "imagenet, or {mean" in fault["msg"] or wrong != "imagenette"


def test_the_schema_takes_what_the_settings_take() -> None:
    schema = ImageSettings.model_json_schema()
    for right in ("imagenet", {"mean": [0, 0, 0], "std": [1, 1, 1]}):
        jsonschema.validate({"normalise": right}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"normalise": "imagenette"}, schema)


# --- what is not random ---


@pytest.mark.parametrize(("side", "size"), [(8, 8), (9, 8), (32, 28), (37, 32)])
def test_evaluation_sees_the_middle(side: int, size: int) -> None:
    images = squares(2, side)
    start = (side - size) // 2
    assert torch.equal(middle(images, size), images[:, :, start : start + size, start : start + size])


def test_normalising_is_torchvisions() -> None:
    images, settings = squares(3, 9), ImageSettings()
    out = empty(3, 9, np.float32)
    normalise(images, settings, out)
    floats = v2.functional.to_dtype(images, torch.float32, scale=True)
    torch.testing.assert_close(
        out.permute(0, 3, 1, 2), v2.functional.normalize(floats, IMAGENET.mean, IMAGENET.std), atol=1e-5, rtol=1e-5
    )


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    images = squares(4, 8)
    assert torch.equal(augmented(images, torch.arange(4), 5, ImageSettings(size=8)), images)


# --- a function of (seed, place) ---

EVERYTHING = [
    {"crop": "shift"},
    {"crop": "resized"},
    {"flip": True},
    {"randaugment": 2},
    {"crop": "resized", "flip": True, "randaugment": 1, "randaugment_magnitude": 30},
]


@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_an_image_does_not_depend_on_the_images_beside_it(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    images, places = squares(40, settings.stored), torch.arange(100, 140)
    together = augmented(images, places, 3, settings)
    torch.manual_seed(0)
    alone = torch.cat([augmented(images[i : i + 1], places[i : i + 1], 3, settings) for i in range(40)])
    assert torch.equal(together, alone)
    assert together.shape == (40, 3, 14, 14)
    order = torch.randperm(40)
    assert torch.equal(augmented(images[order], places[order], 3, settings), together[order])


@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_it_depends_on_the_seed_and_on_the_place(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    images, places = squares(1, settings.stored).expand(40, -1, -1, -1), torch.arange(40)
    one = augmented(images, places, 3, settings)
    assert not torch.equal(one, augmented(images, places, 4, settings))
    assert any(not torch.equal(a, b) for a, b in pairwise(one))


@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_torchs_random_state_is_neither_read_nor_moved(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    before = torch.get_rng_state()
    augmented(squares(10, settings.stored), torch.arange(10), 3, settings)
    assert torch.equal(torch.get_rng_state(), before)


# --- the random choices ---


def test_every_shift_comes_about_equally_often() -> None:
    settings = ImageSettings(size=14, crop="shift")  # stored 16: 3 x 3 windows
    image = squares(1, 16)
    counts = np.zeros((3, 3), int)
    for found in augmented(image.expand(1800, -1, -1, -1), torch.arange(1800), 0, settings):
        (place,) = (
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(found, image[0, :, top : top + 14, left : left + 14])
        )
        counts[place] += 1
    assert abs(counts - 200).max() < 5 * np.sqrt(200)


def test_half_of_the_images_are_mirrored() -> None:
    image = squares(1, 8)
    found = augmented(image.expand(1000, -1, -1, -1), torch.arange(1000), 0, ImageSettings(size=8, flip=True))
    mirrored = [torch.equal(each, image[0].flip(2)) for each in found]
    assert all(
        torch.equal(each, image[0]) for each, is_mirrored in zip(found, mirrored, strict=True) if not is_mirrored
    )
    assert 420 < sum(mirrored) < 580


def test_a_resized_window_has_the_area_and_shape_asked_for_and_lies_within() -> None:
    random = np.random.default_rng(0)
    areas = []
    for numbers in random.random((2000, 4)).tolist():
        top, left, height, width = window(100, 0.25, numbers)
        assert 0 <= top <= top + height <= 100
        assert 0 <= left <= left + width <= 100
        assert 0.7 < width / height < 1.4
        areas.append(height * width / 100**2)
    assert 0.23 < min(areas) < 0.27
    assert max(areas) > 0.97
    assert window(10, 0.001, [0.999, 0.999, 0.0, 0.5]) == (9, 9, 1, 1)


def test_a_resized_crop_is_torchvisions() -> None:
    settings = ImageSettings(size=14, crop="resized", crop_scale=0.1)
    images = squares(30, 16)
    found = augmented(images, torch.arange(30), 7, settings)
    for image, numbers, each in zip(images, uniforms(7, torch.arange(30), 5).tolist(), found, strict=True):
        top, left, height, width = window(16, 0.1, numbers[:4])
        part = image[:, top : top + height, left : left + width]
        assert torch.equal(each, v2.functional.resize(part, [14, 14], antialias=True))


# --- RandAugment ---


def test_the_operations_are_torchvisions() -> None:
    assert list(v2.RandAugment._AUGMENTATION_SPACE) == list(transforms.OPERATIONS)
    signed = {name for name, (_, is_signed) in v2.RandAugment._AUGMENTATION_SPACE.items() if is_signed}
    assert signed == set(transforms.SIGNED)


def test_each_operation_does_what_torchvisions_does() -> None:
    image, reference = squares(1, 24)[0], v2.RandAugment()
    differ = []
    for operation, strength, sign in product(transforms.OPERATIONS, (0, 9, 30), (1, -1)):
        magnitudes, signed = reference._AUGMENTATION_SPACE[operation]
        table = magnitudes(31, 24, 24)
        magnitude = 0.0 if table is None else float(table[strength]) * (sign if signed else 1)
        expected = reference._apply_image_or_video_transform(
            image, operation, magnitude, interpolation=reference.interpolation, fill=reference._fill
        )
        found = transforms.apply_operation(image, operation, strength, sign)
        # A rounding of the magnitude moves single pixels.
        if found.dtype != torch.uint8 or (found != expected).float().mean() > 0.01:
            differ.append((operation, strength, sign))
    assert differ == []


def test_each_operation_is_chosen_with_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[str, int, int]] = []

    def noted(image: Tensor, *choice: Any) -> Tensor:
        chosen.append(choice)
        return image

    monkeypatch.setattr(transforms, "apply_operation", noted)
    settings = ImageSettings(size=4, randaugment=2, randaugment_magnitude=5)
    augmented(squares(1, 4).expand(1400, -1, -1, -1), torch.arange(1400), 0, settings)
    assert len(chosen) == 2800
    counts = [chosen.count((name, 5, sign)) for name in transforms.OPERATIONS for sign in (1, -1)]
    assert sum(counts) == 2800
    assert 60 < min(counts) <= max(counts) < 145
    firsts, seconds = ([name for name, *_ in chosen[start::2]] for start in (0, 1))
    assert 50 < sum(a == b for a, b in zip(firsts, seconds, strict=True)) < 150  # independent: 1400 / 14
