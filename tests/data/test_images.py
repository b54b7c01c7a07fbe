"""An ImageSource gives the same tensors with any number of threads, any cache and any batch size."""

import threading
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import write_images
from pydantic import ValidationError
from torchvision.transforms import v2

from lntl.data.biased_mnist import BiasedMNIST
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.decoding import UnreadableImageError, decode
from lntl.data.images import ImageSettings, ImageSource, Normalise
from lntl.data.lff_colored_mnist import LfFColoredMNIST
from lntl.plugins import Settings

TRAINING_OPTIONS: dict[str, Any] = {"size": 14, "crop": "resized", "flip": True, "randaugment": 1, "random_colors": 0.5}


def make_source(folder: Path, count: int = 30, **options: Any) -> ImageSource:
    settings = ImageSettings(**({"size": 14} | options), cache_dir=str(folder / "cache"))
    return ImageSource(write_images(folder / "images", count), settings)


def test_an_image_is_decoded_centre_cropped_and_normalised(tmp_path: Path) -> None:
    statistics = Normalise(mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    source = make_source(tmp_path, 5, crop="shift", normalise=statistics)
    assert source.shape == (3, 14, 14)
    assert len(source) == 5
    index = torch.tensor([3, 0, 3])
    pixels, x = source.pixels(index), source.load(index)
    assert pixels.dtype == torch.uint8
    assert x.dtype == torch.float32
    for number, crop_pixels, normalised_image in zip(index.tolist(), pixels, x, strict=True):
        full_image = torch.from_numpy(decode(source.paths[number], 16, "crop").copy()).permute(2, 0, 1)
        assert torch.equal(crop_pixels, full_image[:, 1:15, 1:15])
        expected = v2.functional.normalize(full_image[:, 1:15, 1:15] / 255, statistics.mean, statistics.std)
        torch.testing.assert_close(normalised_image, expected)
    assert source.load(torch.arange(0)).shape == (0, 3, 14, 14)


@pytest.mark.full
def test_threads_cache_and_batch_size_do_not_change_the_tensors(tmp_path: Path) -> None:
    index = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    reference_source = make_source(tmp_path, **TRAINING_OPTIONS)
    augmented_images, evaluation_images, pixels = (
        reference_source.load(index, 9),
        reference_source.load(index),
        reference_source.pixels(index),
    )
    assert not torch.equal(augmented_images, evaluation_images)
    for workers, cache, size in product((0, 1, 3), ("none", "memory", "disk"), (1, 7, 30)):
        source = make_source(tmp_path, workers=workers, cache=cache, **TRAINING_OPTIONS)
        for _ in range(2):  # the second iteration reads from the cache
            assert torch.equal(torch.cat([source.load(batch, 9) for batch in index.split(size)]), augmented_images)
            assert torch.equal(torch.cat([source.load(batch) for batch in index.split(size)]), evaluation_images)
            assert torch.equal(source.pixels(index), pixels)


def test_a_share_of_the_training_images_gets_random_colors(tmp_path: Path) -> None:
    index = torch.arange(30)
    original_images, colored_images = (
        make_source(tmp_path).load(index),
        make_source(tmp_path, random_colors=0.5).load(index, 9),
    )
    is_changed = (original_images != colored_images).flatten(1).any(dim=1)
    assert 5 < int(is_changed.sum()) < 25
    assert torch.equal(make_source(tmp_path, random_colors=0.5).load(index), original_images)


@pytest.mark.parametrize("settings", [ImageSettings, ColoredMNIST.Config])
def test_random_colors_of_gray_images_are_refused(settings: type[ImageSettings] | type[ColoredMNIST.Config]) -> None:
    with pytest.raises(ValidationError, match="grayscale: true excludes random_colors; set only one of them"):
        settings(grayscale=True, random_colors=0.5)


@pytest.mark.parametrize("settings", [ImageSettings, ColoredMNIST.Config, BiasedMNIST.Config, LfFColoredMNIST.Config])
def test_inverted_channels_without_random_colors_are_refused(settings: type[Settings]) -> None:
    with pytest.raises(ValidationError, match="random_invert needs random_colors; set random_colors"):
        settings.model_validate({"random_invert": 0.5})


def test_batches_are_channels_last_in_memory(tmp_path: Path) -> None:
    for seed in (None, 1):
        assert (
            make_source(tmp_path, **TRAINING_OPTIONS)
            .load(torch.arange(4), seed)
            .is_contiguous(memory_format=torch.channels_last)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_a_check_lists_all_faults_in_order(tmp_path: Path, workers: int, cache: Any) -> None:
    source = make_source(tmp_path, 150, workers=workers, cache=cache)
    source.paths[3].write_text("no image")
    source.paths[70].unlink()
    source.paths[149].write_bytes(source.paths[149].read_bytes()[:-300])
    faults, header_faults = source.check(), source.check(full=False)
    assert [number for number, _ in faults] == [3, 70, 149]
    assert faults[0][1].startswith("not an image of a known format")
    assert faults[1] == (70, "no such file or directory")
    assert header_faults == faults[:2]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_the_batch_with_its_name(tmp_path: Path, workers: int) -> None:
    source = make_source(tmp_path, workers=workers)
    source.paths[4].unlink()
    with pytest.raises(UnreadableImageError, match=r"4\.png: no such file or directory"):
        source.load(torch.arange(10))
    assert source.load(torch.arange(4)).shape == (4, 3, 14, 14)


def test_the_threads_load_images_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source(tmp_path, workers=3)
    barrier = threading.Barrier(3, timeout=20)  # passes only if three threads wait at it at the same time
    monkeypatch.setattr(source, "_store", lambda number: (barrier.wait(), np.zeros((14, 14, 3), np.uint8))[1])
    assert source.load(torch.arange(6)).shape == (6, 3, 14, 14)


@pytest.mark.parametrize("seed", [None, 5])
def test_threads_load_images_for_a_caller_in_inference_mode(tmp_path: Path, seed: int | None) -> None:
    unthreaded_source, threaded_source = (
        make_source(tmp_path, 6, **TRAINING_OPTIONS),
        make_source(tmp_path, 6, workers=2, **TRAINING_OPTIONS),
    )
    with torch.inference_mode():
        assert torch.equal(threaded_source.load(torch.arange(6), seed), unthreaded_source.load(torch.arange(6), seed))
        assert torch.equal(threaded_source.pixels(torch.arange(6)), unthreaded_source.pixels(torch.arange(6)))


def test_augmented_gray_images_stay_gray(tmp_path: Path) -> None:
    options = ImageSettings(
        **TRAINING_OPTIONS | {"randaugment": 2, "random_colors": 0.0},
        grayscale=True,
        normalise=Normalise(mean=[0, 0, 0], std=[1, 1, 1]),
    )
    x = ImageSource(write_images(tmp_path, 6), options).load(torch.arange(6), seed=1)
    assert torch.equal(x, x[:, :1].expand(-1, 3, -1, -1))
    assert len(x.unique()) > 10
