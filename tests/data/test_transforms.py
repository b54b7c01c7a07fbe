"""Cropping, flipping and RandAugment: they agree with torchvision and depend only on the seed and the index."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torchvision.transforms import v2

from lntl.data import transforms
from lntl.data.image_settings import IMAGENET, ImageSettings
from lntl.data.transforms import augment, center_crop, empty_images, normalise, window
from lntl.seeding import uniforms


def make_random_images(count: int, side: int) -> Tensor:
    """Return random images (count, 3, side, side) uint8, channels last in memory, as they are stored."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=rng).permute(0, 3, 1, 2)


# --- settings ---


@pytest.mark.parametrize(("crop", "size", "stored_size"), [("none", 64, 64), ("shift", 224, 256), ("resized", 28, 32)])
def test_images_are_stored_larger_if_the_crop_is_random(crop: Any, size: int, stored_size: int) -> None:
    assert ImageSettings(crop=crop, size=size).stored_side == stored_size


def test_normalise_accepts_a_name_or_numbers() -> None:
    assert ImageSettings().normalise == ImageSettings.model_validate({"normalise": "imagenet"}).normalise == IMAGENET
    custom = {"mean": [0.5, 0.5, 0], "std": [1, 1, 0.25]}
    assert ImageSettings.model_validate({"normalise": custom}).normalise.model_dump() == custom


@pytest.mark.parametrize(
    "invalid_value", [{"mean": [0.5] * 3, "std": [0, 1, 1]}, {"mean": [0.5], "std": [1, 1, 1]}, "imagenette", 3]
)
def test_an_invalid_normalisation_gives_one_error(invalid_value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ImageSettings.model_validate({"normalise": invalid_value})
    (error,) = caught.value.errors()
    assert error["loc"][0] == "normalise"
    assert "imagenet, or {mean" in error["msg"] or invalid_value != "imagenette"


def test_the_schema_accepts_the_same_values_as_the_settings() -> None:
    import jsonschema

    schema = ImageSettings.model_json_schema()
    for valid_value in ("imagenet", {"mean": [0, 0, 0], "std": [1, 1, 1]}):
        jsonschema.validate({"normalise": valid_value}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"normalise": "imagenette"}, schema)


# --- evaluation and normalisation ---


@pytest.mark.parametrize(("side", "size"), [(8, 8), (9, 8), (32, 28), (37, 32)])
def test_evaluation_crops_the_center(side: int, size: int) -> None:
    images = make_random_images(2, side)
    start = (side - size) // 2
    assert torch.equal(center_crop(images, size), images[:, :, start : start + size, start : start + size])


def test_normalise_agrees_with_torchvision() -> None:
    images, settings = make_random_images(3, 9), ImageSettings()
    output = empty_images(3, 9, np.float32)
    normalise(images, settings, output)
    floats = v2.functional.to_dtype(images, torch.float32, scale=True)
    torch.testing.assert_close(
        output.permute(0, 3, 1, 2), v2.functional.normalize(floats, IMAGENET.mean, IMAGENET.std), atol=1e-5, rtol=1e-5
    )


def test_without_augmentation_the_images_are_unchanged() -> None:
    images = make_random_images(4, 8)
    assert torch.equal(augment(images, torch.arange(4), 5, ImageSettings(size=8)), images)


# --- dependence on the seed and the index ---

AUGMENTATIONS = [
    {"crop": "shift"},
    {"crop": "resized"},
    {"flip": True},
    {"randaugment": 2},
    {"crop": "resized", "flip": True, "randaugment": 1, "randaugment_magnitude": 30},
]


@pytest.mark.parametrize("options", AUGMENTATIONS, ids=str)
def test_an_image_does_not_depend_on_the_rest_of_its_batch(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    images, index = make_random_images(40, settings.stored_side), torch.arange(100, 140)
    batch_outputs = augment(images, index, 3, settings)
    torch.manual_seed(0)
    single_outputs = torch.cat([augment(images[i : i + 1], index[i : i + 1], 3, settings) for i in range(40)])
    assert torch.equal(batch_outputs, single_outputs)
    assert batch_outputs.shape == (40, 3, 14, 14)
    order = torch.randperm(40)
    assert torch.equal(augment(images[order], index[order], 3, settings), batch_outputs[order])


@pytest.mark.parametrize("options", AUGMENTATIONS, ids=str)
def test_an_image_depends_on_the_seed_and_on_its_index(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    images, index = make_random_images(1, settings.stored_side).expand(40, -1, -1, -1), torch.arange(40)
    outputs = augment(images, index, 3, settings)
    assert not torch.equal(outputs, augment(images, index, 4, settings))
    assert any(not torch.equal(a, b) for a, b in pairwise(outputs))


@pytest.mark.parametrize("options", AUGMENTATIONS, ids=str)
def test_augmentation_does_not_change_the_random_state_of_torch(options: dict[str, Any]) -> None:
    settings = ImageSettings(size=14, **options)
    state = torch.get_rng_state()
    augment(make_random_images(10, settings.stored_side), torch.arange(10), 3, settings)
    assert torch.equal(torch.get_rng_state(), state)


# --- the random choices ---


def test_all_shifts_are_about_equally_frequent() -> None:
    settings = ImageSettings(size=14, crop="shift")  # images are stored with side 16, so there are 3 x 3 windows
    image = make_random_images(1, 16)
    counts = np.zeros((3, 3), int)
    for cropped_image in augment(image.expand(1800, -1, -1, -1), torch.arange(1800), 0, settings):
        (corner,) = (
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(cropped_image, image[0, :, top : top + 14, left : left + 14])
        )
        counts[corner] += 1
    assert abs(counts - 200).max() < 5 * np.sqrt(200)


def test_half_of_the_images_are_mirrored() -> None:
    image = make_random_images(1, 8)
    outputs = augment(image.expand(1000, -1, -1, -1), torch.arange(1000), 0, ImageSettings(size=8, flip=True))
    is_mirrored_list = [torch.equal(output, image[0].flip(2)) for output in outputs]
    assert all(
        torch.equal(output, image[0])
        for output, is_mirrored in zip(outputs, is_mirrored_list, strict=True)
        if not is_mirrored
    )
    assert 420 < sum(is_mirrored_list) < 580


def test_random_windows_lie_in_the_image_and_have_the_required_area_and_shape() -> None:
    rng = np.random.default_rng(0)
    areas = []
    for numbers in rng.random((2000, 4)).tolist():
        top, left, height, width = window(100, 0.25, numbers)
        assert 0 <= top <= top + height <= 100
        assert 0 <= left <= left + width <= 100
        assert 0.7 < width / height < 1.4
        areas.append(height * width / 100**2)
    assert 0.23 < min(areas) < 0.27
    assert max(areas) > 0.97
    assert window(10, 0.001, [0.999, 0.999, 0.0, 0.5]) == (9, 9, 1, 1)


def test_resized_crops_agree_with_torchvision() -> None:
    settings = ImageSettings(size=14, crop="resized", crop_scale=0.1)
    images = make_random_images(30, 16)
    outputs = augment(images, torch.arange(30), 7, settings)
    for image, numbers, output in zip(images, uniforms(7, torch.arange(30), 5).tolist(), outputs, strict=True):
        top, left, height, width = window(16, 0.1, numbers[:4])
        cropped_image = image[:, top : top + height, left : left + width]
        assert torch.equal(output, v2.functional.resize(cropped_image, [14, 14], antialias=True))


# --- RandAugment ---


def test_the_operations_have_the_names_and_signs_of_torchvision() -> None:
    assert list(v2.RandAugment._AUGMENTATION_SPACE) == list(transforms.OPERATIONS)
    signed_names = {name for name, (_, is_signed) in v2.RandAugment._AUGMENTATION_SPACE.items() if is_signed}
    assert signed_names == set(transforms.SIGNED_OPERATIONS)


def test_each_operation_agrees_with_torchvision() -> None:
    image, reference = make_random_images(1, 24)[0], v2.RandAugment()
    mismatches = []
    for operation, strength, sign in product(transforms.OPERATIONS, (0, 9, 30), (1, -1)):
        magnitudes, is_signed = reference._AUGMENTATION_SPACE[operation]
        table = magnitudes(31, 24, 24)
        magnitude = 0.0 if table is None else float(table[strength]) * (sign if is_signed else 1)
        expected = reference._apply_image_or_video_transform(
            image, operation, magnitude, interpolation=reference.interpolation, fill=reference._fill
        )
        output = transforms.apply_operation(image, operation, strength, sign)
        # Rounding of the magnitude may change a few pixels.
        if output.dtype != torch.uint8 or (output != expected).float().mean() > 0.01:
            mismatches.append((operation, strength, sign))
    assert mismatches == []


def test_each_operation_is_chosen_with_both_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    choices: list[tuple[str, int, int]] = []

    def record_choice(image: Tensor, *choice: Any) -> Tensor:
        choices.append(choice)
        return image

    monkeypatch.setattr(transforms, "apply_operation", record_choice)
    settings = ImageSettings(size=4, randaugment=2, randaugment_magnitude=5)
    augment(make_random_images(1, 4).expand(1400, -1, -1, -1), torch.arange(1400), 0, settings)
    assert len(choices) == 2800
    counts = [choices.count((name, 5, sign)) for name in transforms.OPERATIONS for sign in (1, -1)]
    assert sum(counts) == 2800
    assert 60 < min(counts) <= max(counts) < 145
    first_names, second_names = ([name for name, *_ in choices[start::2]] for start in (0, 1))
    assert 50 < sum(a == b for a, b in zip(first_names, second_names, strict=True)) < 150  # independent: 1400 / 14
