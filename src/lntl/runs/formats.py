"""Models of the JSON files that commands write and read; all shares are in [0, 1]."""

import math
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, PositiveInt, computed_field

from lntl.types import DataSpec

Level = Annotated[float, Field(ge=0, le=1)]  # chance level, an accuracy


class Estimate(BaseModel):
    """A number with its interval; `undefined` is the reason if there is no number."""

    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    undefined: str | None = None


class Metric(Estimate):
    """A metric over n images; a metric over groups also has `cells`, `all_cells` and perhaps `lowest`."""

    n: int
    meaning: str = ""
    cells: int | None = None  # number of groups (class, bias value) with images
    all_cells: int | None = None  # number of groups that occur in any split
    lowest: str | None = None  # worst-group accuracy only: name of the lowest group and its number of images


class Row(Estimate):
    """The accuracy on the n images of one class, or of one bias value; `small` marks few images."""

    name: str
    n: int
    small: bool = False


class Groups(BaseModel):
    """Accuracy and number of images of each (class, bias value); empty for more than 65,536 groups."""

    accuracy: list[list[FiniteFloat | None]] = []
    count: list[list[int]] = []


class BiasEvaluation(BaseModel):
    """The evaluation by the values of one bias, or of several biases together."""

    bias_value_names: list[str]
    metrics: dict[str, Metric]
    by_bias: list[Row]
    groups: Groups
    warnings: list[str] = []


class Summary(BiasEvaluation):
    """All measurements on a split; `confusion` is empty for more than 256 classes."""

    n: int
    class_names: list[str]
    by_class: list[Row]
    confusion: list[list[int]]

    def of_bias(self) -> BiasEvaluation:
        """Return the part that depends on the bias."""
        return BiasEvaluation(**{name: getattr(self, name) for name in BiasEvaluation.model_fields})


class Evaluation(Summary):
    """evaluation/SPLIT.json: the summary by the combination of all biases; per_bias has the evaluation of each bias."""

    checkpoint: str = ""
    epoch: int
    split: str = "test"
    per_bias: dict[str, BiasEvaluation] = {}


class TrackerIds(BaseModel):
    """trackers.json: the project, the name of the run, and the identifier of the run in each tracker."""

    project: str
    name: str
    ids: dict[str, str]


class ProbeRow(BaseModel):
    """The accuracy of one kind of probe on one layer, over seeds; std is None for one seed."""

    layer: str
    probe: str
    mean: FiniteFloat
    std: FiniteFloat | None = None
    values: list[FiniteFloat]


class Chance(BaseModel):
    """Chance levels: the share of the most frequent value, and the accuracy of a probe trained on permuted labels."""

    majority: Level
    permutation: Level


class Reference(BaseModel):
    """The same probes on raw pixels and on the features of plain training (ERM)."""

    pixels: list[ProbeRow] = []
    erm: list[ProbeRow] | None = None


class LeakageResult(BaseModel):
    """The accuracies of probes for one bias, or for the combination of all biases."""

    chance: Chance
    probes: list[ProbeRow]
    reference: Reference = Reference()
    leakage: FiniteFloat


class Probe(LeakageResult):
    """probe.json: accuracies of probes on the features of a checkpoint; per_bias has those of each bias."""

    checkpoint: str = ""
    epoch: int
    bias: str
    n_train: int
    n_test: PositiveInt
    seeds: list[int]
    h_accuracy: FiniteFloat | None = None
    h_chance: Level | None = None
    recolorable: bool = True  # whether the bias value of an image can be changed
    per_bias: dict[str, LeakageResult] = {}
    warnings: list[str] = []
    seconds: float | None = None


class Changes(BaseModel):
    """Effect of the color on predictions: share of changed predictions, and mean change of the probabilities."""

    flip_rate: Estimate
    mean_change: Estimate


class ColorAccuracy(BaseModel):
    """The accuracy over all images in one color."""

    name: str
    accuracy: FiniteFloat


class Recoloring(Changes):
    """recoloring.json: the effect of recoloring n test images."""

    checkpoint: str = ""
    epoch: int | None = None
    n: int
    colors: list[str]
    by_color: list[ColorAccuracy]
    erm: Changes | None = None


class ShiftStep(BaseModel):
    """Test images changed by `shift`: the share of changed predictions, and the accuracy; `erm_*`: the same for ERM."""

    shift: FiniteFloat
    flip_rate: Estimate
    accuracy: FiniteFloat
    erm_flip_rate: Estimate | None = None
    erm_accuracy: FiniteFloat | None = None


class ShiftCurve(BaseModel):
    """One property of test images that was changed in steps; spread: its standard deviation over unchanged images."""

    name: str
    spread: FiniteFloat
    steps: list[ShiftStep]


class ImageShift(BaseModel):
    """image_shift.json: how predictions for n test images change with properties that are computed from the image."""

    checkpoint: str = ""
    epoch: int | None = None
    n: PositiveInt
    curves: list[ShiftCurve]


class SaliencyExample(BaseModel):
    """A test example of saliency.npz; `mistake`: drawn from the wrong predictions, not from the groups."""

    name: str
    label: str
    bias: str | None = None  # None if unknown
    predicted: str
    erm_predicted: str | None = None
    mistake: bool


class Saliency(BaseModel):
    """saliency.json: test examples, and how saliency.npz explains the predictions (integrated gradients)."""

    checkpoint: str = ""
    epoch: int | None = None
    steps: PositiveInt  # points of the integral
    kind: Literal["images", "vectors"]
    examples: list[SaliencyExample]


class CheckpointScores(BaseModel):
    """The values of the configured metrics for one checkpoint, on the split on which the run is scored."""

    checkpoint: str = ""
    epoch: int
    test: dict[str, float | None] = {}
    val: dict[str, float | None] = {}


class Result(BaseModel):
    """result.json: the scores of a finished run; `erm` is the result of plain training on the same data."""

    project: str = ""
    experiment: str
    method: str
    seed: int
    data: str = ""
    sizes: dict[str, int] = {}
    selection: str = ""
    start_from: str = ""  # checkpoint with the initial networks, if training started from one
    last: CheckpointScores
    best: CheckpointScores
    erm: "Result | None" = None
    training_seconds: FiniteFloat | None = None


class Epoch(BaseModel, extra="allow"):
    """A line of metrics.jsonl: the epoch and its metrics (train/NAME, val/NAME, time/NAME), None if undefined."""

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
        """Seconds that the epoch took; 0 if unknown."""
        value = self.metrics.get("time/seconds")
        return value if value is not None and math.isfinite(value) else 0.0


class RowDigests(BaseModel):
    """SHA-256 of the rows of train, in any order (train), and of the rows of all splits, in their order (all)."""

    train: str
    all: str


class LearnedData(BaseModel):
    """The training data: spec and transform, to use the networks without the data; digests, to detect changes."""

    spec: DataSpec
    transform: dict[str, object]
    rows: RowDigests | None = None


class Machine(BaseModel):
    """Versions and hardware; for a resumed part of a run, only the differences from the first part."""

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
    """environment.json: versions and hardware at the start of a run, and their differences in each resumed part."""

    resumed: list[Machine] = []

    def parts(self) -> list[Machine]:
        """Return versions and hardware of each part of the run, in order."""
        first = self.model_dump(exclude={"resumed"}, exclude_unset=True)
        return [
            Machine.model_validate(first | part.model_dump(exclude_unset=True)) for part in (Machine(), *self.resumed)
        ]


# report.json: each field `run` belongs to the run itself, each field `erm` to plain training on the same data.

Value = TypeVar("Value")


class RunAndErm(BaseModel, Generic[Value]):
    """A value of the run and of plain training (ERM); None if not measured."""

    run: Value | None = None
    erm: Value | None = None


class Answer(BaseModel):
    """A question, its answer in a word or two, and the evidence in a few sentences."""

    question: str
    short: str
    text: str


class Verdict(BaseModel):
    """Whether the run unlearned its bias: a word, and a sentence that explains it."""

    word: str
    text: str


class KeyNumber(RunAndErm[Estimate]):
    """A number at the top of a report; `better` says whether more or less is better."""

    name: str
    label: str
    meaning: str
    better: str
    chance: Level | None = None


class ComparedMetric(RunAndErm[Estimate]):
    """A metric over n images."""

    name: str
    label: str
    meaning: str = ""
    n: int | None = None
    cells: int | None = None
    all_cells: int | None = None
    lowest: str | None = None


class ComparedRow(RunAndErm[Estimate]):
    """The accuracy on the n images of one class, or of one bias value; `small` marks few images."""

    name: str
    n: int
    small: bool = False


class BiasLeakage(RunAndErm[Estimate]):
    """The highest accuracy of a fresh probe for one bias; `pixels` is that of a probe on raw pixels."""

    pixels: Estimate | None = None


class BiasReport(BaseModel):
    """The part of a report for one of several biases."""

    name: str
    bias_value_names: list[str] | None = None
    chance: Level | None = None
    leakage: BiasLeakage = BiasLeakage()
    metrics: dict[str, RunAndErm[Metric]]
    groups: RunAndErm[Groups]


class RecoloringReport(RunAndErm[Changes]):
    """The effect of recoloring n images, and the accuracy in each color."""

    n: int
    by_color: list[ColorAccuracy]


class RunReport(BaseModel):
    """The content of a report on one run; `missing` maps each missing part to the command that creates it."""

    name: str
    folder: str
    method: str
    is_plain: bool
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
    groups: RunAndErm[Groups] = RunAndErm()
    confusion: RunAndErm[list[list[int]]] = RunAndErm()
    per_bias: list[BiasReport] = []
    probe: Probe | None = None
    recoloring: RecoloringReport | None = None
    image_shift: ImageShift | None = None
    saliency: Saliency | None = None
    phases: list[str] = []
    augmentation: str = ""  # of training images
    epochs: list[Epoch] = []
    selection: str | None = None
    training_seconds: float | None = None
    config: dict[str, object] = {}
    environment: Environment | None = None
    warnings: list[str] = []
    missing: dict[str, str] = {}


class ComparedRun(BaseModel):
    """A row of the comparison: a run, or the plain training of a run."""

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
    """A comparison of several runs."""

    question: str
    answer: str
    rows: list[ComparedRun]


class Report(BaseModel):
    """report.json; `format` increases when the meaning of the content changes."""

    format: int
    lntl: str
    runs: list[RunReport]
    comparison: RunComparison | None = None


class CellCount(BaseModel):
    """A group (class, bias value) and its number of rows."""

    name: str
    label: str
    value: str
    n: int


class CellCounts(BaseModel):
    """The groups of a split: numbers of empty, absent and small groups, the first groups of each kind, the smallest."""

    empty: int  # number of groups without rows here
    absent: int  # number of empty groups that have rows in another split
    small: int  # number of groups with fewer rows than `few`
    few: int
    empty_cells: list[CellCount]
    absent_cells: list[CellCount]
    small_cells: list[CellCount]
    smallest: CellCount | None
    difference: float | None  # smallest difference of two accuracies that a test on the smallest group can detect


class SplitCounts(BaseModel):
    """The rows of a split."""

    name: str
    n: int
    classes: list[int]
    missing: FiniteFloat  # share of rows without a bias value
    filled: int  # number of groups with rows
    cells: int  # number of all groups


class Association(BaseModel):
    """Association of a bias and the label on one split; `undefined` is the reason if a number is None."""

    cramers_v: FiniteFloat | None
    mutual_information: FiniteFloat | None
    bias_only: FiniteFloat | None  # accuracy on this split of the rule from bias value to class that is best on train
    majority: FiniteFloat | None
    undefined: str | None


class BiasCounts(BaseModel):
    """A bias on each split, by name; `counts` (class, value) is empty for more than 65,536 groups."""

    name: str
    values: list[str]
    counts: dict[str, list[list[int]]]
    missing: dict[str, FiniteFloat]
    association: dict[str, Association]
    # Balanced accuracy on val of predictions of the value; None: unknown.
    color_accuracy: FiniteFloat | None = None  # from the mean color of an image
    contrast_accuracy: FiniteFloat | None = None  # from how much brighter its middle is than the whole


class LeakingGroups(BaseModel):
    """Values of the column group_id that have rows in more than one split."""

    column: str
    groups: list[str]


class Example(BaseModel):
    """A row of the data; `value` is None if its bias value is unknown."""

    name: str
    split: str
    label: str
    value: str | None


class SharedExamples(BaseModel):
    """Number n of the examples of split `of` that are equal to an example of split `within`."""

    of: str
    within: str
    n: int


class EqualExamples(BaseModel):
    """Sets of equal examples: how many there are, how many have several splits or classes, and a list of some."""

    sets: int
    examples: int
    across: int
    disagree: int
    shared: list[SharedExamples]
    listed: list[list[Example]]


class AlikeImages(BaseModel):
    """Pairs of similar images: how many there are, how many have two splits or classes, and a list of some."""

    means: str
    pairs: int
    across: int
    disagree: int
    listed: list[list[Example]]


class Duplicates(BaseModel):
    """Equal and similar examples among n; `of` is "images" or "vectors". Similar vectors are not searched for."""

    of: str
    n: int
    equal: EqualExamples
    alike: AlikeImages | None


class Finding(BaseModel):
    """A finding of an audit: with a problem, results are untrustworthy; a warning limits their meaning."""

    level: Literal["problem", "warning", "note"]
    title: str
    text: str


class Recommendation(BaseModel):
    """The recommended first method, the reasons, and the lines of YAML to write."""

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
    annotated: bool  # whether any row has a bias value
    class_names: list[str]
    n: int
    splits: list[SplitCounts]  # the first is train
    biases: list[BiasCounts]  # if there are several, the last is their combination
    cells: dict[str, CellCounts]
    brightness_only: FiniteFloat | None  # accuracy on training images of the best rule from brightness to class
    center_brightness_only: FiniteFloat | None = None  # the same for the brightness of the centre
    opened: bool  # whether the image files were opened
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


class Trial(BaseModel):
    """trials.jsonl: a line of a study; `value` is the mean over the seeds (if pruned, over the trained seeds)."""

    number: int
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    value: FiniteFloat | None = None
    scores: list[FiniteFloat] = []
    values: dict[str, bool | int | FiniteFloat | str | None] = {}
    epochs: int = 0  # of the last phase
    seconds: float | None = None
    error: str = ""


class Study(BaseModel):
    """The results of `lntl tune`: the content of its page."""

    name: str
    objective: str
    label: str
    lower_is_better: bool
    config: str
    seeds: int
    best: int | None
    importance: dict[str, FiniteFloat]  # share of the objective's variance that each key explains
    trials: list[Trial]
    processor: str
    threads: int | None
    lntl: str
