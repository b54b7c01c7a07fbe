"""Models of the JSON files that commands write and read; all shares lie in [0, 1]."""

import math
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, PositiveInt, computed_field

from lntl.types import DataSpec

Share = Annotated[float, Field(allow_inf_nan=False)]
Level = Annotated[float, Field(ge=0, le=1)]  # chance level, an accuracy


class Estimate(BaseModel):
    """A number with its interval; `undefined` says why there is none."""

    value: Share | None = None
    low: Share | None = None
    high: Share | None = None
    undefined: str | None = None


class Metric(Estimate):
    """A metric over n images; of one over groups, also in how many of the data's cells these images lie."""

    n: int
    meaning: str = ""
    cells: int | None = None  # cells (class, bias value) with images
    all_cells: int | None = None  # cells that occur in any split
    lowest: str | None = None  # of worst-group accuracy, the name of the cell and its images


class Row(Estimate):
    """The accuracy on the n images of one class, or of one bias value; `small` says that they are few."""

    name: str
    n: int
    small: bool = False


class Groups(BaseModel):
    """Of each (class, bias value): accuracy and number of images; empty where there are more than 65,536."""

    accuracy: list[list[Share | None]] = []
    count: list[list[int]] = []


class BiasEvaluation(BaseModel):
    """What depends on the bias: the evaluation by the values of one bias, or of several biases together."""

    bias_value_names: list[str]
    metrics: dict[str, Metric]
    by_bias: list[Row]
    groups: Groups
    warnings: list[str] = []


class Summary(BiasEvaluation):
    """All that is measured on a split; `confusion` is empty for more than 256 classes."""

    n: int
    class_names: list[str]
    by_class: list[Row]
    confusion: list[list[int]]

    def of_bias(self) -> BiasEvaluation:
        """Return the part that depends on the bias."""
        return BiasEvaluation(**{name: getattr(self, name) for name in BiasEvaluation.model_fields})


class Evaluation(Summary):
    """evaluation/SPLIT.json: a summary; of several biases it is for their combination, per_bias for each."""

    checkpoint: str = ""
    epoch: int
    split: str = "test"
    per_bias: dict[str, BiasEvaluation] = {}


class ProbeRow(BaseModel):
    """The accuracy of one kind of probe on one layer, over seeds; of one seed there is no std."""

    layer: str
    probe: str
    mean: Share
    std: Share | None = None
    values: list[Share]


class Chance(BaseModel):
    """Accuracies without information: of the most frequent value, and of a probe trained on permuted labels."""

    majority: Level
    permutation: Level


class Reference(BaseModel):
    """The same probes on raw pixels and on plain training's features."""

    pixels: list[ProbeRow] = []
    erm: list[ProbeRow] | None = None


class Leaks(BaseModel):
    """The accuracies of probes for one bias, or for the combination of all."""

    chance: Chance
    probes: list[ProbeRow]
    reference: Reference = Reference()
    leakage: Share


class Probe(Leaks):
    """probe.json: accuracies of probes on the features of a checkpoint; per_bias: for each of several biases."""

    checkpoint: str = ""
    epoch: int
    bias: str
    n_train: int
    n_test: PositiveInt
    seeds: list[int]
    h_accuracy: Share | None = None
    h_chance: Level | None = None
    recolorable: bool = True  # whether an image can be given another bias value
    per_bias: dict[str, Leaks] = {}
    warnings: list[str] = []
    seconds: float | None = None


class Changes(BaseModel):
    """How much a prediction depends on the colour: share of images that flip, mean change of the probabilities."""

    flip_rate: Estimate
    mean_change: Estimate


class ColorAccuracy(BaseModel):
    """The accuracy over all images in one colour."""

    name: str
    accuracy: Share


class Recoloring(Changes):
    """recoloring.json."""

    checkpoint: str = ""
    epoch: int | None = None
    n: int
    colors: list[str]
    by_color: list[ColorAccuracy]
    erm: Changes | None = None


class CheckpointScores(BaseModel):
    """The values of the configured metrics for one checkpoint, on the split that scores the run."""

    checkpoint: str = ""
    epoch: int
    test: dict[str, float | None] = {}
    val: dict[str, float | None] = {}


class Result(BaseModel):
    """result.json: what a finished run reached; `erm` is the result of plain training on the same data."""

    project: str = ""
    experiment: str
    method: str
    seed: int
    data: str = ""
    sizes: dict[str, int] = {}
    selection: str = ""
    start_from: str = ""  # the checkpoint whose networks training began with
    last: CheckpointScores
    best: CheckpointScores
    erm: "Result | None" = None
    training_seconds: Share | None = None


class Epoch(BaseModel, extra="allow"):
    """A line of metrics.jsonl: which epoch, then its metrics (train/NAME, val/NAME, time/NAME), None if undefined."""

    __pydantic_extra__: dict[str, float | None]
    phase: int
    method: str
    epoch: int
    total_epoch: int
    step: int = 0

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics by name."""
        return self.__pydantic_extra__

    @property
    def seconds(self) -> float:
        """Seconds that the epoch took; 0 if the line does not say so."""
        value = self.metrics.get("time/seconds")
        return value if value is not None and math.isfinite(value) else 0.0


class RowDigests(BaseModel):
    """SHA-256 of the rows of a data set: of train in any order, of all splits in order."""

    train: str
    all: str


class LearnedData(BaseModel):
    """The data of a checkpoint: spec and transform, to use its networks without them; digests, to detect changes."""

    spec: DataSpec
    transform: dict[str, object]
    rows: RowDigests | None = None


class Machine(BaseModel):
    """Versions and hardware; in a part that was resumed, only what differs from the first part."""

    lntl: str = ""
    python: str = ""
    packages: dict[str, str] = {}
    git_commit: str | None = None
    platform: str = ""
    processor: str = ""
    cores: int | None = None
    threads: int | None = None
    memory_gib: float | None = None
    cuda: str | None = None


class Environment(Machine):
    """environment.json: where the run began and, part by part, what differed where it was resumed."""

    resumed: list[Machine] = []

    def parts(self) -> list[Machine]:
        """Return versions and hardware of each part of the run, in order."""
        first = self.model_dump(exclude={"resumed"}, exclude_unset=True)
        return [
            Machine.model_validate(first | part.model_dump(exclude_unset=True)) for part in (Machine(), *self.resumed)
        ]


# report.json: each `run` is of the run itself, each `erm` of plain training on the same data.

Value = TypeVar("Value")


class Compared(BaseModel, Generic[Value]):
    """A value of the run beside that of plain training (ERM); None where it was not measured."""

    run: Value | None = None
    erm: Value | None = None


class Answer(BaseModel):
    """A question, its answer in a word or two, and the evidence in a few sentences."""

    question: str
    short: str
    text: str


class Verdict(BaseModel):
    """Whether the run unlearned its bias: a word, and a sentence that says what it means."""

    word: str
    text: str


class KeyNumber(Compared[Estimate]):
    """A number at the top of a report; `better` says whether more or less is better."""

    name: str
    label: str
    meaning: str
    better: str
    chance: Level | None = None


class ComparedMetric(Compared[Estimate]):
    """A metric over n images."""

    name: str
    label: str
    meaning: str = ""
    n: int | None = None
    cells: int | None = None
    all_cells: int | None = None
    lowest: str | None = None


class ComparedRow(Compared[Estimate]):
    """The accuracy on the n images of one class, or of one bias value; `small` says that they are few."""

    name: str
    n: int
    small: bool = False


class BiasLeakage(Compared[Estimate]):
    """The highest accuracy of a fresh probe for one bias; `pixels`: of a probe on raw pixels."""

    pixels: Estimate | None = None


class BiasReport(BaseModel):
    """What a report says of one of several biases."""

    name: str
    bias_value_names: list[str] | None = None
    chance: Level | None = None
    leakage: BiasLeakage = BiasLeakage()
    metrics: dict[str, Compared[Metric]]
    groups: Compared[Groups]


class RecoloringReport(Compared[Changes]):
    """What recolouring n images changed, and the accuracy in each colour."""

    n: int
    by_color: list[ColorAccuracy]


class RunReport(BaseModel):
    """The content of a report on one run; `missing` holds, for each part that is missing, the command that makes it."""

    name: str
    folder: str
    method: str
    epoch: int | None = None
    seed: int | None = None
    data: str | None = None
    bias: str
    question: str
    verdict: Verdict
    answers: list[Answer]
    key_numbers: list[KeyNumber]
    n: int | None = None
    class_names: list[str] = []
    bias_value_names: list[str] = []
    metrics: list[ComparedMetric] = []
    by_class: list[ComparedRow] = []
    by_bias: list[ComparedRow] = []
    groups: Compared[Groups] = Compared()
    confusion: Compared[list[list[int]]] = Compared()
    per_bias: list[BiasReport] = []
    probe: Probe | None = None
    recoloring: RecoloringReport | None = None
    phases: list[str] = []
    epochs: list[Epoch] = []
    selection: str | None = None
    training_seconds: float | None = None
    config: dict[str, object] = {}
    environment: Environment | None = None
    warnings: list[str] = []
    missing: dict[str, str] = {}


class ComparedRun(BaseModel):
    """A row of the comparison: a run, or the plain training beside one."""

    name: str
    method: str
    verdict: str | None = None
    seed: int | None = None
    chance: Level | None = None
    unbiased_accuracy: Estimate | None = None
    worst_group_accuracy: Estimate | None = None
    leakage: Estimate | None = None
    flip_rate: Estimate | None = None


class RunComparison(BaseModel):
    """Several runs beside each other."""

    question: str
    answer: str
    rows: list[ComparedRun]


class Report(BaseModel):
    """report.json; `format` is raised when the content changes its meaning."""

    format: int
    lntl: str
    runs: list[RunReport]
    comparison: RunComparison | None = None


class CellCount(BaseModel):
    """A cell (class, bias value) and its rows."""

    name: str
    label: str
    value: str
    n: int


class CellCounts(BaseModel):
    """The cells of a split: how many are empty, absent or small, the first of them, and what the smallest can show."""

    empty: int  # of all cells
    absent: int  # of the cells that have rows in another split
    small: int  # with fewer rows than `few`
    few: int
    empty_cells: list[CellCount]
    absent_cells: list[CellCount]
    small_cells: list[CellCount]
    smallest: CellCount | None
    difference: float | None  # the smallest difference of two accuracies that a test on the smallest cell finds


class SplitCounts(BaseModel):
    """The rows of a split."""

    name: str
    n: int
    classes: list[int]
    missing: Share  # of the rows, those without a bias value
    filled: int  # cells with rows
    cells: int


class Association(BaseModel):
    """How much a bias says about the label on one split; `undefined` says why a number is None."""

    cramers_v: Share | None
    mutual_information: Share | None
    bias_only: Share | None  # share of rows on which the best rule of training from bias value to class is right
    majority: Share | None
    undefined: str | None


class BiasCounts(BaseModel):
    """A bias on each split, by name; `counts` (class, value) is empty where there are more than 65,536 cells."""

    name: str
    values: list[str]
    counts: dict[str, list[list[int]]]
    missing: dict[str, Share]
    association: dict[str, Association]


class LeakingGroups(BaseModel):
    """Values of the column that keeps rows together, with rows in more than one split."""

    column: str
    groups: list[str]


class Example(BaseModel):
    """A row of the data; `value` is None where its bias value is unknown."""

    name: str
    split: str
    label: str
    value: str | None


class SharedExamples(BaseModel):
    """Examples of split `of` that have an equal one in split `within`."""

    of: str
    within: str
    n: int


class EqualExamples(BaseModel):
    """Sets of equal examples: how many, in how many splits, with how many classes, and some of them."""

    sets: int
    examples: int
    across: int
    disagree: int
    shared: list[SharedExamples]
    listed: list[list[Example]]


class AlikeImages(BaseModel):
    """Pairs of images that look alike: how many, across splits, with different classes, and some of them."""

    means: str
    pairs: int
    across: int
    disagree: int
    listed: list[list[Example]]


class Duplicates(BaseModel):
    """Equal and alike ones among n examples, `of` being images or vectors; alike vectors are not searched for."""

    of: str
    n: int
    equal: EqualExamples
    alike: AlikeImages | None


class Finding(BaseModel):
    """A finding of an audit: problems make results untrustworthy, warnings limit what they can show."""

    level: Literal["problem", "warning", "note"]
    title: str
    text: str


class Recommendation(BaseModel):
    """The method to begin with, why, and the lines of YAML to write."""

    method: str
    title: str
    reasons: list[str]
    yaml: str


class Check(BaseModel):
    """check.json: the audit of a configuration's data before any training."""

    format: int
    lntl: str
    experiment: str
    data: str
    source: str
    val_note: str
    best_model_metric: str
    label: str
    bias: str
    annotated: bool  # whether a single row has a bias value
    class_names: list[str]
    n: int
    splits: list[SplitCounts]  # the first is train
    biases: list[BiasCounts]  # of several the last is their combination
    cells: dict[str, CellCounts]
    brightness_only: Share | None  # share of training images whose class their brightness alone gives
    center_brightness_only: Share | None = None  # the same of the brightness of the middle
    opened: bool
    on_error: str | None
    wrong_rows: list[str]
    unreadable: list[str]
    leaking: LeakingGroups | None
    duplicates: Duplicates | None
    difference_means: str
    findings: list[Finding] = []
    recommendation: Recommendation | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trustworthy(self) -> bool:
        """Whether no finding is a problem."""
        return all(finding.level != "problem" for finding in self.findings)
