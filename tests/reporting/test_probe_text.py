"""The result of a probe in the terminal: the table, and sentences that agree with the numbers."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from lntl.reporting.tables import probe_tables
from lntl.reporting.verdict import probe_sentences
from lntl.runs.formats import Probe, Recoloring


def make_row(layer: str, probe: str, mean: float, std: float = 0.01) -> dict[str, Any]:
    return {"layer": layer, "probe": probe, "mean": mean, "std": std, "values": [mean]}


def make_interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def make_probe(leakage: float = 0.9, h: float | None = 0.2, **changes: Any) -> Probe:
    content = {
        "epoch": 3,
        "n_train": 5000,
        "bias": "nearest mean color",
        "n_test": 5000,
        "seeds": [0, 1, 2],
        "chance": {"majority": 0.12, "permutation": 0.1},
        "h_accuracy": h,
        "h_chance": None if h is None else 0.19,
        "probes": [
            make_row("f", "linear", leakage - 0.01),
            make_row("f", "conv", leakage),
            make_row("penultimate", "mlp", 0.1),
        ],
        "reference": {"pixels": [make_row("pixels", "linear", 0.76)], "erm": [make_row("f", "conv", 0.98, 0.002)]},
        "leakage": leakage,
        "warnings": [],
    }
    return Probe.model_validate(content | changes)


def get_sentences(probe: Probe, recoloring: dict[str, Any] | None = None) -> list[str]:
    return list(probe_sentences(probe, None if recoloring is None else Recoloring.model_validate(recoloring)))


def print_tables(probe: Probe) -> list[list[str]]:
    """Return the lines of each table."""
    texts = []
    for table in probe_tables(probe):
        screen = StringIO()
        Console(file=screen, width=80).print(table)
        texts.append([" ".join(line.split()) for line in screen.getvalue().splitlines()])
    return texts


def test_the_table_has_every_number() -> None:
    (lines,) = print_tables(make_probe())
    assert "f linear 0.890 ± 0.010 0.760 ± 0.010" in lines  # ERM has no linear probe
    assert "f conv 0.900 ± 0.010 0.980 ± 0.002" in lines  # the pixels have no convolutional probe
    assert "penultimate mlp 0.100 ± 0.010" in lines
    assert "chance most frequent 0.120" in lines
    assert "chance permuted 0.100" in lines
    assert "f h, on its labels 0.200" in lines
    assert "chance most frequent 0.190" in lines
    assert "layer probe accuracy ERM pixels" in lines
    (lines_without_h,) = print_tables(make_probe(h=None, reference={"pixels": [], "erm": None}))
    assert "f conv 0.900 ± 0.010" in lines_without_h
    assert not any("on its labels" in line for line in lines_without_h)
    assert "layer probe accuracy pixels" in lines_without_h


@pytest.mark.parametrize(
    ("leakage", "h", "start", "h_phrase"),
    [
        (0.90, 0.20, "Most of the bias is left: ", "so h was fooled: it is at chance, the fresh probe is not."),
        (0.90, 0.60, "Most of the bias is left: ", "so h was not fooled."),
        (0.50, 0.10, "Part of the bias is left: ", "so h was fooled"),
        (0.25, 0.20, "Little of the bias is left: ", "so h was fooled"),
        (0.13, 0.20, "No bias was found: ", "so both are at chance."),
        (0.05, 0.60, "No bias was found: ", "so h was not fooled."),
        (0.90, None, "Most of the bias is left: ", "no phase trained a bias head h."),
    ],
)
def test_the_sentence_fits_the_numbers(leakage: float, h: float | None, start: str, h_phrase: str) -> None:
    probes = [make_row("f", "conv", leakage), make_row("f", "linear", 0.01)]
    (sentence,) = get_sentences(make_probe(leakage, h, probes=probes))
    assert sentence.startswith(start)
    assert h_phrase in sentence
    assert f"(conv at f) predicts the nearest mean color for {leakage:.1%} of unseen images" in sentence
    assert "(chance 12.0%; plain training: 98.0%)" in sentence


def test_for_few_images_a_small_leakage_is_not_significant() -> None:
    probes = [make_row("f", "conv", 0.2)]
    (sentence_of_many_images,) = get_sentences(make_probe(0.2, probes=probes))
    # Three standard errors are 0.14.
    (sentence_of_few_images,) = get_sentences(make_probe(0.2, probes=probes, n_test=50))
    assert sentence_of_many_images.startswith("Little of the bias is left")
    assert sentence_of_few_images.startswith("No bias was found:")


def test_without_an_erm_run_the_sentence_does_not_mention_erm() -> None:
    (sentence,) = get_sentences(make_probe(reference={"pixels": [], "erm": None}))
    assert "(chance 12.0%)" in sentence


def test_recoloring_and_warnings_give_a_sentence_each() -> None:
    recoloring = {
        "n": 10000,
        "by_color": [],
        "colors": ["a", "b"],
        "flip_rate": make_interval(0.25),
        "mean_change": make_interval(0.125),
        "erm": {"flip_rate": make_interval(0.97), "mean_change": make_interval(0.5)},
    }
    _, flips, note = get_sentences(make_probe(warnings=["no test image of class 3"]), recoloring)
    assert flips == (
        "The prediction changes for 25.0% of 10000 test images if they are shown in all 2 colors (95 % interval "
        "24.0% to 26.0%; plain training: 97.0%); the mean change of the probabilities is 0.125 (0.115 to 0.135; plain "
        "training: 0.500)."
    )
    assert note == "Note: no test image of class 3."
    sentence_without_erm = get_sentences(make_probe(), recoloring | {"erm": None})[1]
    assert "plain training" not in sentence_without_erm


def test_each_of_several_biases_has_a_table_and_a_sentence() -> None:
    sky_content = {
        "chance": {"majority": 0.5, "permutation": 0.48},
        "probes": [make_row("f", "conv", 0.97)],
        "reference": {"pixels": [make_row("pixels", "conv", 0.99)], "erm": None},
        "leakage": 0.97,
    }
    age_content = sky_content | {"probes": [make_row("f", "mlp", 0.505)], "leakage": 0.505}
    probe = make_probe(bias="sky, age", per_bias={"sky": sky_content, "age": age_content})
    _, sky_lines, age_lines = print_tables(probe)
    assert sky_lines[0].startswith("sky: accuracy of fresh probes on 5000 unseen test images")
    assert (
        "f conv 0.970 ± 0.010 0.990 ± 0.010" in sky_lines
    )  # the second column is the probe of pixels; there is no ERM
    assert "chance most frequent 0.500" in sky_lines
    assert not any("on its labels" in line for line in sky_lines)
    assert age_lines[0].startswith("age: ")
    texts = get_sentences(probe)
    assert texts[1] == (
        "sky alone: most of the bias is left; the best fresh probe (conv at f) predicts it for 97.0% of unseen images "
        "(chance 50.0%)."
    )
    assert texts[2].startswith("age alone: no bias was found; the best fresh probe (mlp at f) predicts it for 50.5%")
