"""Test images with another brightness or color: the change of the images and the flips of the predictions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import lntl

from lntl.data.biases import BiasSetting, brightness
from lntl.data.eval_transform import FileTransform
from lntl.data.image_settings import ImageSettings
from lntl.data.table import Table
from lntl.errors import UserError
from lntl.probing import image_shift
from lntl.probing.image_shift import DIRECTIONS, STEPS, measure, select_directions, shift_pixels
from lntl.reporting.verdict import shift_sentence
from lntl.runs.formats import Estimate, ImageShift, ShiftCurve, ShiftStep

GRAY_IMAGES = torch.randint(80, 170, (4, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_shift_changes_its_measure_by_the_same_amount_and_no_other_measure(direction: str) -> None:
    for shift in (-0.2, 0.1):
        shifted_images = (255 * shift_pixels(GRAY_IMAGES, direction, shift)).round().to(torch.uint8)
        change = measure(shifted_images, direction) - measure(GRAY_IMAGES, direction)
        torch.testing.assert_close(change, torch.full((4,), shift, dtype=torch.float64), atol=0.004, rtol=0)
        if direction != "brightness":
            mean = shifted_images.double().mean(dim=(1, 2, 3)) - GRAY_IMAGES.double().mean(dim=(1, 2, 3))
            torch.testing.assert_close(mean / 255, torch.zeros(4, dtype=torch.float64), atol=0.004, rtol=0)
    torch.testing.assert_close(shift_pixels(GRAY_IMAGES, direction, 0.0), GRAY_IMAGES / 255)
    torch.testing.assert_close(measure(GRAY_IMAGES, "brightness")[:, None], brightness(GRAY_IMAGES))


def test_values_beyond_black_and_white_are_clipped() -> None:
    assert shift_pixels(torch.full((1, 3, 1, 1), 250, dtype=torch.uint8), "brightness", 0.2).max() == 1
    assert shift_pixels(torch.full((1, 3, 1, 1), 5, dtype=torch.uint8), "brightness", -0.2).min() == 0


def test_a_shift_of_0_gives_the_images_of_evaluation() -> None:
    transform = FileTransform(ImageSettings(size=6))
    expected = transform(GRAY_IMAGES.permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(transform(shift_pixels(GRAY_IMAGES, "brightness", 0.0)), expected, atol=1e-6, rtol=1e-5)


def make_settings(*biases: dict[str, object]) -> Table.Config:
    return Table.Config(path="t.csv", label="y", bias=[BiasSetting.model_validate(bias) for bias in biases])


def test_the_shifts_are_those_of_the_option_or_of_the_computed_biases() -> None:
    computed_biases = make_settings(
        {"from": "center_brightness", "bins": 4}, {"from": "size", "bins": 2}, {"column": "sky"}
    )
    assert select_directions((), computed_biases) == ("brightness",)
    assert select_directions(("color",), computed_biases) == ("red cast", "green cast", "blue cast")
    assert select_directions((), make_settings({"column": "sky"})) == ()
    option_shifts = select_directions(("background", "color", "brightness"), make_settings())
    assert option_shifts == ("red cast", "green cast", "blue cast", "brightness")
    with pytest.raises(UserError, match=r"--shift brigtness: this cannot be changed .* did you mean 'brightness'"):
        select_directions(("brigtness",), computed_biases)


def test_a_sentence_gives_the_flips_of_both_directions() -> None:
    steps = [
        ShiftStep(shift=s, flip_rate=Estimate(value=abs(s), low=0, high=0.5), accuracy=0.8, erm_accuracy=None)
        for s in STEPS
    ]
    text = shift_sentence(ShiftCurve(name="brightness", spread=0.12, steps=steps), 500).replace("\u202f", " ")
    assert text == (
        "If the brightness of 500 test images is lowered by 0.1, 10.0 % of the predictions change (95 % interval 0.0 % "
        "to 50.0 %); if it is raised by 0.1, 10.0 % change (95 % interval 0.0 % to 50.0 %). Black is 0 and white is 1; "
        "the standard deviation of the brightness over images is 0.12."
    )


@pytest.mark.full
@pytest.mark.usefixtures("skip_drawing")
def test_probe_and_report_count_the_flips_of_shifted_images(
    trained_run: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The probed network predicts only by brightness, so the test can count the flips."""
    run = tmp_path / "run"
    shutil.copytree(trained_run("table"), run)
    monkeypatch.setattr(image_shift, "_make_network_input", lambda transform, images: images)
    monkeypatch.setattr(
        image_shift, "_predict", lambda networks, x: torch.stack([is_bright(step) for step in x], dim=1)
    )
    measured_pixels: list[torch.Tensor] = []
    original_measure = image_shift.measure

    def record_and_measure(pixels: torch.Tensor, direction: str) -> torch.Tensor:
        measured_pixels.append(pixels)
        return original_measure(pixels, direction)

    monkeypatch.setattr(image_shift, "measure", record_and_measure)
    assert lntl("probe", str(run), "--shift", "brightness", "--seeds", "1") == 0, capsys.readouterr().err
    assert "If the brightness of" in capsys.readouterr().out
    content = ImageShift.model_validate_json((run / "image_shift.json").read_bytes())
    pixels = torch.cat(measured_pixels)
    assert content.n == len(pixels)
    (curve,) = content.curves
    original_predictions = is_bright(shift_pixels(pixels, "brightness", 0.0))
    for step in curve.steps:
        flips = (is_bright(shift_pixels(pixels, "brightness", step.shift)) != original_predictions).double().mean()
        assert step.flip_rate.value == pytest.approx(float(flips))
        assert step.flip_rate.low <= step.flip_rate.value <= step.flip_rate.high
    assert curve.spread == pytest.approx(float(original_measure(pixels, "brightness").std(correction=0)))
    with np.load(run / "image_shift.npz") as arrays:
        assert arrays["x"].shape == (1, 4, 7, 3, 16, 16)
        assert arrays["predicted"].shape == (1, 4, 7)
    assert lntl("report", str(run)) == 0, capsys.readouterr().err
    page = (run / "report/index.html").read_text("utf-8")
    assert "The same image, brighter, darker or in another light" in page
    assert "If the brightness of" in page
    report = json.loads((run / "report/report.json").read_text("utf-8"))["runs"][0]
    assert report["image_shift"]["curves"][0]["name"] == "brightness"


def is_bright(x: torch.Tensor) -> torch.Tensor:
    """Return whether the mean of each image is above 0.5."""
    return (x.mean(dim=(1, 2, 3)) > 0.5).long()


def test_shifting_the_brightness_of_vectors_is_refused(
    trained_run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run("vectors"), run)
    assert lntl("probe", str(run), "--shift", "brightness", "--seeds", "1") == 2
    assert (
        "--shift: the test examples are not images, so they have no brightness or color; leave --shift out"
        in capsys.readouterr().err
    )
    assert not (run / "probe.json").exists()
