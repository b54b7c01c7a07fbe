"""What is said of a probed run: the table's numbers, and the sentence that fits them."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lntl.reporting.leakage import per_bias, probe_table, verdict


def row(layer: str, probe: str, mean: float, std: float = 0.01) -> dict[str, Any]:
    return {"layer": layer, "probe": probe, "mean": mean, "std": std, "values": [mean]}


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def found(leakage: float = 0.9, h: float | None = 0.2, **more: Any) -> dict[str, Any]:
    return {
        "bias": "nearest mean colour",
        "n_test": 5000,
        "seeds": [0, 1, 2],
        "chance": {"majority": 0.12, "permutation": 0.1},
        "h_accuracy": h,
        "h_chance": None if h is None else 0.19,
        "probes": [row("f", "linear", leakage - 0.01), row("f", "conv", leakage), row("penultimate", "mlp", 0.1)],
        "reference": {"pixels": [row("pixels", "linear", 0.76)], "erm": [row("f", "conv", 0.98, 0.002)]},
        "leakage": leakage,
        "recoloring": None,
        "warnings": [],
    } | more


def shown(content: dict[str, Any]) -> list[str]:
    screen = StringIO()
    Console(file=screen, width=80).print(probe_table(content))
    return [" ".join(line.split()) for line in screen.getvalue().splitlines()]


def test_the_table_has_every_number() -> None:
    lines = shown(found())
    assert "f linear 0.890 ± 0.010 0.760 ± 0.010" in lines  # no such probe of ERM
    assert "f conv 0.900 ± 0.010 0.980 ± 0.002" in lines  # no such probe of pixels
    assert "penultimate mlp 0.100 ± 0.010" in lines
    assert "chance most frequent 0.120" in lines
    assert "chance permuted 0.100" in lines
    assert "f h, own labels 0.200" in lines
    assert "chance most frequent 0.190" in lines
    assert "layer probe accuracy ERM pixels" in lines
    without = shown(found(h=None, reference={"pixels": [], "erm": None}))
    assert "f conv 0.900 ± 0.010" in without
    assert not any("own labels" in line for line in without)
    assert "layer probe accuracy pixels" in without


@pytest.mark.parametrize(
    ("leakage", "h", "told", "of_h"),
    [
        (0.90, 0.20, "Most of the bias is left: ", "so h was fooled: it is at chance although the bias can be read."),
        (0.90, 0.60, "Most of the bias is left: ", "so h was not fooled."),
        (0.50, 0.10, "Part of the bias is left: ", "so h was fooled"),
        (0.25, 0.20, "Little of the bias is left: ", "so h was fooled"),
        (0.13, 0.20, "No bias was found to be left: ", "which agrees."),
        (0.05, 0.60, "No bias was found to be left: ", "so h was not fooled."),
        (0.90, None, "Most of the bias is left: ", "no phase trained a bias head h."),
    ],
)
def test_the_sentence_fits_the_numbers(leakage: float, h: float | None, told: str, of_h: str) -> None:
    probes = [row("f", "conv", leakage), row("f", "linear", 0.01)]
    (sentence,) = verdict(found(leakage, h, probes=probes))
    assert sentence.startswith(told)
    assert of_h in sentence
    assert f"(conv at f) reads the nearest mean colour of {leakage:.1%} of unseen images" in sentence
    assert "(chance 12.0%; plain training: 98.0%)" in sentence


def test_few_images_prove_little() -> None:
    probes = [row("f", "conv", 0.2)]
    (many,) = verdict(found(0.2, probes=probes))
    (few,) = verdict(found(0.2, probes=probes, n_test=50))  # three standard errors: 0.14
    assert many.startswith("Little of the bias is left")
    assert few.startswith("No bias was found to be left")


def test_without_erm_nothing_is_said_of_it() -> None:
    (sentence,) = verdict(found(reference={"pixels": [], "erm": None}))
    assert "(chance 12.0%)" in sentence


def test_recolouring_and_warnings() -> None:
    recoloring = {
        "n": 10000,
        "colors": ["a", "b"],
        "flip_rate": interval(0.25),
        "mean_change": interval(0.125),
        "erm": {"flip_rate": interval(0.97), "mean_change": interval(0.5)},
    }
    _, flips, note = verdict(found(recoloring=recoloring, warnings=["no test image of class 3"]))
    assert flips == (
        "Shown in all 2 colours, 25.0% of 10000 test images do not keep their prediction (95 % interval 24.0% to 26.0%"
        "; plain training: 97.0%); the probabilities move by 0.125 on average, where 0 is none (0.115 to 0.135; plain "
        "training: 0.500)."
    )
    assert note == "Note: no test image of class 3."
    alone = list(verdict(found(recoloring=recoloring | {"erm": None})))[1]
    assert "plain training" not in alone


def test_several_biases_have_a_table_and_a_sentence_each() -> None:
    of_sky = {
        "chance": {"majority": 0.5, "permutation": 0.48},
        "probes": [row("f", "conv", 0.97)],
        "reference": {"pixels": [row("pixels", "conv", 0.99)], "erm": None},
        "leakage": 0.97,
    }
    of_age = of_sky | {"probes": [row("f", "mlp", 0.505)], "leakage": 0.505}
    content = found(bias="sky, age", biases={"sky": of_sky, "age": of_age})
    sky, age = per_bias(content)
    lines = shown(sky)
    assert lines[0].startswith("sky: share of 5000 unseen test images")
    assert "f conv 0.970 ± 0.010 0.990 ± 0.010" in lines  # of pixels; there is no ERM
    assert "chance most frequent 0.500" in lines
    assert not any("own labels" in line for line in lines)
    assert shown(age)[0].startswith("age: ")
    told = list(verdict(content))
    assert told[1] == (
        "sky alone: most of the bias is left; the best fresh probe (conv at f) reads it of 97.0% of unseen images "
        "(chance 50.0%)."
    )
    assert told[2].startswith(
        "age alone: no bias was found to be left; the best fresh probe (mlp at f) reads it of 50.5%"
    )
    assert list(per_bias(found())) == []
