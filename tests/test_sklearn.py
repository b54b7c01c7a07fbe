"""DebiasedClassifier passes the checks of scikit-learn, equals the trainer, and works in pipelines and searches."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from lanes import first_is_fast
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import AdaBoostClassifier
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lntl import config as configuration
from lntl import plugins
from lntl.data.arrays import InMemory
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.experiment import build
from lntl.sklearn import DebiasedClassifier, make_config, make_phases

N = 150
CPU = torch.device("cpu")
SMALL_SETTINGS: dict[str, Any] = {"hidden": (16, 8), "epochs": 2, "batch_size": 32, "device": "cpu", "random_state": 0}


class WithDefaultBias(DebiasedClassifier):  # type: ignore[misc]
    """The estimator with an arbitrary bias where `fit` gets none, because scikit-learn's checks pass no bias."""

    def fit(self, X: Any, y: Any, bias: Any = None) -> "WithDefaultBias":
        return super().fit(X, y, np.arange(np.asarray(y).size) % 2 if bias is None else bias)


EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "weight 2 doubles the probability of a draw, not the example",
    "check_methods_subset_invariance": "numbers are float32, and the last bits of a matrix product depend on its size",
}


@pytest.mark.full
@parametrize_with_checks(
    [
        cls(method, hidden=(32, 16), epochs=10, batch_size=32)
        for cls, method in ((DebiasedClassifier, "erm"), (WithDefaultBias, "lntl"))
    ],
    expected_failed_checks=lambda _estimator: EXPECTED_FAILURES,
    xfail_strict=False,  # these checks pass on some machines
)
def test_the_estimator_passes_the_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.fixture
def pets() -> tuple[Any, Any, Any]:
    """150 vectors that encode an animal and, with a larger scale, the sky, which matches the animal in most of them."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    sky = np.where(rng.random(N) < 0.8, y, rng.integers(0, 3, N))
    X = np.stack([y + rng.normal(0, 0.4, N), 3 * sky + rng.normal(0, 0.1, N)], axis=1)
    return X.astype(np.float32), np.array(["cat", "dog", "eel"])[y], sky


def predicts_the_same(a: DebiasedClassifier, b: DebiasedClassifier, X: Any) -> bool:
    return bool((a.predict_proba(X) == b.predict_proba(X)).all() and (a.transform(X) == b.transform(X)).all())


def test_the_estimator_trains_like_the_command_line(pets: tuple[Any, Any, Any], tmp_path: Path) -> None:
    """The networks are those of a run on the same arrays with every row in train, bit for bit."""
    X, y, sky = pets
    classifier = DebiasedClassifier(**SMALL_SETTINGS, mu=0.3, ema=0.9, method_settings={"h_steps": 2}).fit(
        X, y, bias=sky
    )
    split = ["train"] * N + ["val", "test"] * 3
    repeated_rows = [0, 0, 1, 1, 2, 2]
    rows = [*range(N), *repeated_rows]
    np.savez(tmp_path / "a.npz", x=X[rows], y=y[rows], bias=sky[rows], split=np.array(split))
    phases = [
        {"method": "erm", "epochs": 1},
        {"method": "bias_head", "epochs": 1},
        {"method": "lntl", "epochs": 2, "mu": 0.3, "h_steps": 2},
    ]
    raw = {
        "project": {"experiment_name": "a", "seed": int(np.random.RandomState(0).randint(2**31 - 1))},
        "data": {"name": "arrays", "path": str(tmp_path / "a.npz"), "split": "split", "normalise": "none"},
        "model": {"name": "mlp", "hidden": [16, 8]},
        "training": {"device": "cpu", "batch_size": 32, "ema": 0.9, "phases": phases},
    }
    experiment = build(configuration.validate(raw, "test"))
    records = list(experiment.trainer)
    expected_state = experiment.trainer.evaluated.state_dict()
    for name, value in classifier.networks_.state_dict().items():
        assert torch.equal(value, expected_state[name]), name
    assert [(e["phase"], e["method"], e["train/task"]) for e in classifier.history_ if "train/task" in e] == [
        (r.phase, r.method, r.metrics["train/task"]) for r in records if "train/task" in r.metrics
    ]
    networks = experiment.trainer.evaluated.eval()
    with torch.no_grad():
        z = networks.f(torch.from_numpy(X))
        logits = networks.g(z)
    np.testing.assert_allclose(classifier.transform(X), z.numpy(), atol=1e-6)
    np.testing.assert_allclose(classifier.decision_function(X), logits.numpy(), atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(X), logits.softmax(dim=1).numpy(), atol=1e-6)
    assert (classifier.predict(X) == np.array(["cat", "dog", "eel"])[logits.argmax(dim=1)]).all()
    assert classifier.score(X, y) == np.mean(classifier.predict(X) == y)


def test_the_decision_for_two_classes_is_the_second_logit_minus_the_first(pets: tuple[Any, Any, Any]) -> None:
    X, y, _ = pets
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(X, y == "eel")
    p = classifier.predict_proba(X)
    np.testing.assert_allclose(classifier.decision_function(X), np.log(p[:, 1] / p[:, 0]), atol=1e-6)


def test_the_bias_affects_only_methods_that_use_it(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    for method, uses_bias in (("lntl", True), ("erm", False), ("lff", False)):
        first, second = (
            DebiasedClassifier(method, **SMALL_SETTINGS).fit(X, y, bias=bias) for bias in (sky, np.roll(sky, 1))
        )
        assert predicts_the_same(first, second, X) != uses_bias


BIAS_FORMS: dict[str, Callable[[Any], Any]] = {
    "texts": lambda sky: np.array(["day", "dusk", "night"])[sky],
    "list": lambda sky: [int(value) for value in sky],
    "series": lambda sky: pd.Series(sky, name="sky"),
    "column": lambda sky: sky[:, None],
    "floats": lambda sky: sky.astype(np.float32),
    "categories": lambda sky: pd.Categorical.from_codes(sky, ["day", "dusk", "night"]),
    "nullable": lambda sky: pd.Series(sky, dtype="Int64"),
}


@pytest.mark.parametrize("form", first_is_fast(BIAS_FORMS))
def test_a_bias_may_be_given_in_every_form(pets: tuple[Any, Any, Any], form: str) -> None:
    X, y, sky = pets
    a, b = (DebiasedClassifier(**SMALL_SETTINGS).fit(X, y, bias=bias) for bias in (sky, BIAS_FORMS[form](sky)))
    assert predicts_the_same(a, b, X)
    assert b.networks_.h(torch.zeros(2, 8)).shape[:2] == (2, 3)


MISSING_VALUES: dict[str, Any] = {"none": None, "nan": float("nan"), "na": pd.NA, "empty": "", "minus one": -1}


@pytest.mark.parametrize("kind", MISSING_VALUES)
def test_a_missing_bias_is_not_learned_from(pets: tuple[Any, Any, Any], kind: str) -> None:
    X, y, sky = pets
    bias = np.array(["day", "dusk", "night"], dtype=object)[sky]
    bias[::7] = MISSING_VALUES[kind]
    classifier = DebiasedClassifier("bias_head", **SMALL_SETTINGS).fit(X, y, bias=bias)
    is_known = np.arange(N) % 7 > 0
    labels_with_ignore = np.where(is_known, sky, -100)
    assert predicts_the_same(
        classifier, DebiasedClassifier("bias_head", **SMALL_SETTINGS).fit(X, y, bias=labels_with_ignore), X
    )


def test_each_of_several_biases_has_a_head(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    frame = pd.DataFrame({"sky": sky, "age": np.where(np.arange(N) % 2, "old", None)})
    frame.loc[::4, "age"] = "young"
    classifier = DebiasedClassifier(**SMALL_SETTINGS).fit(X, y, bias=frame)
    assert classifier.networks_.h(torch.zeros(2, 8)).shape == (2, 3, 2)


TRAINED_METHODS = {
    "erm": ["erm"] * 2,
    "group_dro": ["group_dro"] * 2,
    "jtt": ["erm", "jtt", "jtt"],
    "lntl": ["erm", "bias_head", "lntl", "lntl"],
    "blind_eye": ["erm", "bias_head", "blind_eye", "blind_eye"],
}


@pytest.mark.parametrize("method", first_is_fast(["lntl", *sorted({*plugins.names("lntl.methods")} - {"lntl"})]))
def test_every_method_is_fitted(pets: tuple[Any, Any, Any], method: str) -> None:
    X, y, sky = pets
    classifier = DebiasedClassifier(method, **SMALL_SETTINGS).fit(X, y, bias=sky)
    assert [epoch["method"] for epoch in classifier.history_] == TRAINED_METHODS.get(
        method, [e["method"] for e in classifier.history_]
    )
    assert np.isfinite(classifier.predict_proba(X)).all()


def test_phases_replace_the_default_phases(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    phases = [{"method": "bias_product", "epochs": np.int64(1)}, {"method": "lntl", "epochs": 2, "mu": np.float64(0.5)}]
    classifier = DebiasedClassifier(**SMALL_SETTINGS, phases=phases).fit(X, y, bias=sky)
    assert [epoch["method"] for epoch in classifier.history_] == ["bias_product", "lntl", "lntl"]
    assert classifier.history_[-1]["train/mu"] == pytest.approx(0.5)


IMAGE_FORMATS = {
    "gray": ((12, 12), np.uint8),
    "color": ((12, 12, 3), np.uint8),
    "channels first": ((3, 12, 12), np.float32),
    "float": ((12, 12), np.float64),
}
RESNET = {"name": "torchvision/resnet18", "split": "layer1", "small_images": True}


@pytest.mark.parametrize("shape", first_is_fast(IMAGE_FORMATS))
def test_images_of_each_layout_are_classified(shape: str) -> None:
    """Class 1 is bright in its upper half."""
    sides, dtype = IMAGE_FORMATS[shape]
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = rng.uniform(0, 0.5, (60, *sides))
    rows = np.zeros(sides, dtype=bool)
    rows[(slice(None), slice(0, 6)) if sides[0] == 3 else slice(0, 6)] = True
    X[y == 1] += 0.5 * rows
    X = (X * 255).astype(dtype) if dtype is np.uint8 else X.astype(dtype)
    classifier = DebiasedClassifier(model="convnet", **SMALL_SETTINGS | {"epochs": 15}).fit(
        X, y, bias=np.arange(60) // 2 % 2
    )
    assert classifier.score(X, y) == 1
    assert classifier.transform(X).shape == (60, 32 * 6 * 6)
    assert classifier.n_features_in_ == sides[0]
    assert len(classifier.input_shape_) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_bytes_and_floats_of_the_same_images_give_the_same_predictions(dtype: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    images_by_dtype = {np.uint8: pixels, np.float32: (pixels / 255).astype(np.float32)}
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(images_by_dtype[dtype], Y)
    for restored_classifier in (classifier, pickle.loads(pickle.dumps(classifier))):
        byte_probabilities, float_probabilities = (
            restored_classifier.predict_proba(X) for X in images_by_dtype.values()
        )
        np.testing.assert_allclose(byte_probabilities, float_probabilities, atol=1e-5)
        np.testing.assert_allclose(*(restored_classifier.transform(X) for X in images_by_dtype.values()), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "features"), [("mlp", 8), ({"name": "mlp"}, 8), ({"name": "mlp", "hidden": [16, 5]}, 5)], ids=str
)
def test_hidden_applies_to_every_mlp_without_its_own_setting(model: Any, features: int) -> None:
    assert DebiasedClassifier("erm", model, **SMALL_SETTINGS).fit(VECTORS, Y).transform(VECTORS).shape == (40, features)


@pytest.mark.parametrize("model", first_is_fast(["mlp", "convnet", "lenet", RESNET]), ids=str)
def test_the_estimator_survives_pickle_joblib_copy_and_clone(model: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 8, 8), dtype=np.float32), np.arange(40) % 2
    classifier = DebiasedClassifier("erm", model, **SMALL_SETTINGS | {"epochs": 1}).fit(X, y)
    file = io.BytesIO()
    joblib.dump(classifier, file)
    file.seek(0)
    state = torch.get_rng_state()
    for restored_classifier in (pickle.loads(pickle.dumps(classifier)), joblib.load(file), copy.deepcopy(classifier)):
        assert predicts_the_same(classifier, restored_classifier, X)
    assert torch.equal(torch.get_rng_state(), state)
    cloned_classifier = clone(classifier)
    assert not hasattr(cloned_classifier, "networks_")
    assert predicts_the_same(classifier, cloned_classifier.fit(X, y), X)


def test_results_depend_on_the_seed_and_global_random_state_is_unchanged(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 - the test reads the global generator
    first, second = (DebiasedClassifier(**SMALL_SETTINGS).fit(X, y, bias=sky) for _ in range(2))
    other_seed = DebiasedClassifier(**SMALL_SETTINGS | {"random_state": 1}).fit(X, y, bias=sky)
    assert predicts_the_same(first, second, X)
    assert not predicts_the_same(first, other_seed, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_the_estimator_prints_nothing_and_writes_no_file(
    pets: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y, sky = pets
    DebiasedClassifier(**SMALL_SETTINGS).fit(X, y, bias=sky).transform(X)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def enable_routing() -> Iterator[None]:
    with config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("enable_routing")
@pytest.mark.full
def test_the_bias_is_routed_through_a_pipeline_and_a_search(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    pipeline = make_pipeline(StandardScaler(), DebiasedClassifier(**SMALL_SETTINGS).set_fit_request(bias=True))
    scaled_X = StandardScaler().fit_transform(X)
    reference = DebiasedClassifier(**SMALL_SETTINGS).fit(scaled_X, y, bias=sky)
    assert (pipeline.fit(X, y, bias=sky).predict_proba(X) == reference.predict_proba(scaled_X)).all()

    bias_lengths: list[int] = []

    def record_bias_and_get_accuracy(y_true: Any, predicted: Any, bias: Any) -> float:
        bias_lengths.append(len(bias))
        return float(accuracy_score(y_true, predicted))

    grid = {"debiasedclassifier__mu": np.array([0.1, 1.0]), "debiasedclassifier__epochs": np.array([1, 2])}
    scorer = make_scorer(record_bias_and_get_accuracy).set_score_request(bias=True)
    search = GridSearchCV(pipeline, grid, cv=3, scoring=scorer, error_score="raise").fit(X, y, bias=sky)
    assert bias_lengths == [N // 3] * 12
    assert search.best_params_["debiasedclassifier__epochs"] in (1, 2)
    assert search.predict(X).shape == (N,)


@pytest.mark.usefixtures("enable_routing")
def test_a_bias_without_a_routing_request_is_an_error(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    with pytest.raises(Exception, match="bias"):
        make_pipeline(StandardScaler(), DebiasedClassifier(**SMALL_SETTINGS)).fit(X, y, bias=sky)


def test_data_frames_are_accepted_and_returned(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    frame = pd.DataFrame(X, columns=["shape", "light"], index=np.arange(N)[::-1])
    classifier = DebiasedClassifier(**SMALL_SETTINGS).fit(
        frame, pd.Series(y, frame.index), bias=pd.Series(sky, frame.index)
    )
    assert list(classifier.feature_names_in_) == ["shape", "light"]
    z = classifier.set_output(transform="pandas").transform(frame)
    assert list(z.columns) == list(classifier.get_feature_names_out()) == [f"debiasedclassifier{k}" for k in range(8)]
    assert (z.index == frame.index).all()
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["light", "shape"]])


def test_pandas_objects_with_another_index_are_refused(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    frame, reversed_index = pd.DataFrame(X), np.arange(N)[::-1]
    for name, series in (
        ("y", pd.Series(y, reversed_index)),
        ("bias", pd.Series(sky, reversed_index)),
        ("sample_weight", pd.Series(reversed_index)),
    ):
        argument = series if name != "sample_weight" else pd.Series(np.ones(N), reversed_index)
        arguments = {"X": frame, "y": y, "bias": sky} | {name: argument}
        with pytest.raises(ValueError, match=rf"{name} has another index than X, .* e\.g\. {name}\.loc\[X\.index\]"):
            DebiasedClassifier(**SMALL_SETTINGS).fit(**arguments)
        DebiasedClassifier(**SMALL_SETTINGS | {"epochs": 1}).fit(**arguments | {name: argument.to_numpy()})


def test_sample_weights_set_the_probability_of_a_draw(pets: tuple[Any, Any, Any]) -> None:
    X, y, _ = pets
    unweighted_classifier, equally_weighted_classifier = (
        DebiasedClassifier("erm", **SMALL_SETTINGS).fit(X, y, sample_weight=w) for w in (None, np.full(N, 0.5))
    )
    assert predicts_the_same(unweighted_classifier, equally_weighted_classifier, X)
    weight = 1.0 + (y == "cat")
    for method in ("erm", "resample"):
        loader = Loader(InMemory(torch.from_numpy(X), np.arange(N) % 3, ("a", "b", "c"), []).train, 50, CPU)
        loader.row_weights = torch.from_numpy(weight)
        method_weights = None if method == "erm" else torch.linspace(1, 2, N)
        rows = torch.cat([batch.row for seed in range(40) for batch in loader.batches(seed, weights=method_weights)])
        expected = weight * (1 if method_weights is None else method_weights.double().numpy())
        share = np.bincount(rows.numpy(), minlength=N) / len(rows)
        assert len(rows) == 40 * N
        np.testing.assert_allclose(share[y == "cat"].sum(), (expected / expected.sum())[y == "cat"].sum(), atol=0.02)
        assert [b.row.tolist() for b in loader.batches()] == [list(range(k, k + 50)) for k in (0, 50, 100)]
    cat_weighted_classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(
        X, y, sample_weight=1.0 + 50 * (y == "cat")
    )
    assert (cat_weighted_classifier.predict(X) == "cat").mean() > (unweighted_classifier.predict(X) == "cat").mean()


@pytest.mark.parametrize("method", ["dfr", "leace"])
def test_weights_that_a_method_does_not_use_are_refused(method: str) -> None:
    weight = np.linspace(1, 2, 40)
    with pytest.raises(ValueError, match=f"method {method} fits the last layer without weights"):
        DebiasedClassifier(method, **SMALL_SETTINGS).fit(VECTORS, Y, bias=BIAS, sample_weight=weight)


def test_labels_that_are_missing_or_merged_give_a_warning() -> None:
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS)
    with pytest.warns(UserWarning, match="^bias: 'NA' means an unknown label; rename it if it is a value$"):
        classifier.fit(VECTORS, Y, bias=np.array(["NA", "DE", "FR", "DE"] * 10))
    with pytest.warns(UserWarning, match="^bias: spellings of 'é' that differ only in Unicode form"):
        classifier.fit(VECTORS, Y, bias=np.array(["é", "e\u0301", "a", "a"] * 10))
    with pytest.warns(
        UserWarning, match="^y: some classes differ only in Unicode form, invisible characters or spaces"
    ):
        classifier.fit(VECTORS, np.array(["é", "e\u0301", "a", "a"] * 10))


def test_inputs_with_too_few_digits_give_a_warning() -> None:
    X = np.stack([1.7e9 + np.where(Y, 1.0, -1.0), VECTORS[:, 0]], axis=1)  # a standard deviation of exactly 1
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(X, Y)
    np.testing.assert_array_equal(next(classifier._batches(classifier._validate(X)))[:, 0], np.where(Y, 1, -1))
    with pytest.warns(UserWarning, match="X is float32, but the classifier was fitted on float64 numbers"):
        classifier.predict(X.astype(np.float32))


def test_scores_of_pandas_objects_with_another_index_are_refused() -> None:
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(VECTORS, Y)
    X, y = pd.DataFrame(VECTORS), pd.Series(Y)
    assert classifier.score(X, y) == classifier.score(VECTORS, Y)
    with pytest.raises(ValueError, match=r"y has another index than X.*y\.loc\[X\.index\]"):
        classifier.score(X, y.iloc[::-1])
    with pytest.raises(ValueError, match="sample_weight has another index than X"):
        classifier.score(X, y, sample_weight=pd.Series(np.ones(40)).iloc[::-1])


def test_an_example_of_weight_0_is_left_out(pets: tuple[Any, Any, Any]) -> None:
    X, y, sky = pets
    weight = (np.arange(N) >= 30).astype(float)
    classifier = DebiasedClassifier("group_dro", **SMALL_SETTINGS).fit(X, y, bias=pd.Series(sky), sample_weight=weight)
    assert predicts_the_same(
        classifier, DebiasedClassifier("group_dro", **SMALL_SETTINGS).fit(X[30:], y[30:], bias=sky[30:]), X
    )


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (np.zeros(40), "is 0 for every example|at least one non-zero"),
        (-np.ones(40), "[Nn]egative"),
        (np.full(40, np.nan), "NaN"),
        ([1.0], "40"),
    ],
)
def test_invalid_weights_are_refused(weight: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DebiasedClassifier("erm", **SMALL_SETTINGS).fit(VECTORS, Y, sample_weight=weight)


def test_the_estimator_accepts_the_weights_of_adaboost(pets: tuple[Any, Any, Any]) -> None:
    X, y, _ = pets
    ensemble = AdaBoostClassifier(DebiasedClassifier("erm", **SMALL_SETTINGS), n_estimators=2, random_state=0).fit(X, y)
    assert ensemble.predict(X).shape == (N,)


def test_vectors_are_not_changed_and_images_are_normalised() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    vectors = rng.random((30, 5), dtype=np.float32)
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(vectors, y)
    np.testing.assert_array_equal(next(classifier._batches(torch.from_numpy(vectors))).numpy(), vectors)
    images = rng.random((30, 3, 6, 6), dtype=np.float32)
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(images, y)
    x = next(classifier._batches(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=1e-6)


@pytest.mark.full
def test_features_that_float32_cannot_represent_are_standardised_in_double() -> None:
    """Seconds since 1970 determine the class; adjacent float32 numbers are 128 seconds apart there."""
    rng, y = np.random.default_rng(0), np.arange(200) % 2
    seconds = 1_700_000_000 + 60 * y + rng.integers(0, 30, 200)
    for X in (np.stack([seconds.astype(float), rng.normal(size=200)], axis=1), seconds[:, None]):
        classifier = DebiasedClassifier("erm", **SMALL_SETTINGS | {"epochs": 30, "lr": 0.01}).fit(X, y)
        assert classifier.score(X, y) == 1
        x = next(classifier._batches(classifier._validate(X))).numpy()
        np.testing.assert_allclose(x, (X - X.mean(axis=0)) / X.std(axis=0), atol=1e-6)
        assert predicts_the_same(classifier, pickle.loads(pickle.dumps(classifier)), X)


VECTORS, Y, BIAS = np.random.default_rng(0).random((40, 2)), np.arange(40) % 2, np.arange(40) // 2 % 2
IMAGE_ARRAY = np.random.default_rng(0).random((40, 6, 6))
WRONG_INPUTS: dict[str, tuple[dict[str, Any], tuple[Any, Any, Any], str]] = {
    "no bias": ({}, (VECTORS, Y, None), r"method lntl needs bias labels.*debian, erm, jtt, lff"),
    "one value": ({}, (VECTORS, Y, [1] * 40), "bias bias: it has only the value '1'"),
    "no value": ({}, (VECTORS, Y, [None] * 40), "no value at all"),
    "too few": ({}, (VECTORS, Y, BIAS[:5]), r"inconsistent numbers of samples: \[40, 5\]"),
    "fractions": ({}, (VECTORS, Y, VECTORS[:, 0]), "which is not an integer; put it into bins"),
    "a cube": ({}, (VECTORS, Y, np.zeros((40, 1, 1))), r"bias is an array \(40, 1, 1\)"),
    "method": ({"method": "lnt"}, (VECTORS, Y, BIAS), "did you mean 'lntl'"),
    "model": ({"model": "mpl"}, (VECTORS, Y, BIAS), "did you mean 'mlp'"),
    "model for images": ({"model": "convnet"}, (VECTORS, Y, BIAS), "convnet takes images"),
    "mu": ({"method": "erm", "mu": 1.0}, (VECTORS, Y, BIAS), "phases.0.mu: unknown key"),
    "epochs": ({"epochs": 0}, (VECTORS, Y, BIAS), "epochs: 0 should be greater than or equal to 1"),
    "batch size": ({"batch_size": 1}, (VECTORS, Y, BIAS), "batch_size: 1 should be"),
    "device": ({"device": "tpu"}, (VECTORS, Y, BIAS), "unknown device 'tpu'"),
    "setting": ({"method_settings": {"h_step": 2}}, (VECTORS, Y, BIAS), "did you mean 'h_steps'"),
    "phase": ({"phases": [{"epochs": 2}]}, (VECTORS, Y, BIAS), "phases.0: missing 'method'"),
    "no phase": ({"phases": []}, (VECTORS, Y, BIAS), "training.phases: List should have at least 1"),
    "missing class": ({}, (VECTORS, np.where(Y == 1, None, "a"), BIAS), "y has 20 missing labels"),
    "missing class in pandas": (
        {},
        (VECTORS, pd.Series(np.where(Y == 1, None, "a"), dtype="string"), BIAS),
        "y has 20 missing labels .* leave these examples out",
    ),
    "fractions in float32": ({}, (VECTORS, Y, [np.float32(k % 3 / 2) for k in range(40)]), "which is not an integer"),
    "integer images": (
        {"method": "erm"},
        ((IMAGE_ARRAY * 1.5).astype(np.int64), Y, None),
        r"X is int64 \(40, 6, 6\); give images as uint8, or as float in \[0, 1\]",
    ),
    "missing text": ({}, (VECTORS, Y, ["NA", "a"] * 20), "counts as missing; give it another .*, or omit bias"),
    "one class": ({}, (VECTORS, Y * 0, BIAS), "y has 1 class, 0; a classifier needs two"),
    "range": ({}, (IMAGE_ARRAY * 255, Y, BIAS), "give them as uint8, or as float in"),
    "channels": ({}, (IMAGE_ARRAY[:, :, :, None].repeat(7, 3), Y, BIAS), "with 1 or 3 channels"),
    "split": ({"model": {"name": "torchvision/resnet18"}}, (IMAGE_ARRAY, Y, BIAS), "model.split: missing"),
    "learning rate": ({"method": "erm", "lr": 1e30, "epochs": 5}, (VECTORS, Y, BIAS), "the loss is not finite"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_input_is_a_value_error_with_the_reason(case: str) -> None:
    settings, (X, y, bias), sentence = WRONG_INPUTS[case]
    with pytest.raises(ValueError, match=sentence):
        DebiasedClassifier(**SMALL_SETTINGS | settings).fit(X, y, bias=bias)


def test_images_of_another_shape_are_refused() -> None:
    classifier = DebiasedClassifier("erm", **SMALL_SETTINGS).fit(IMAGE_ARRAY, Y)
    with pytest.raises(
        ValueError, match=r"an example of X has the shape \(1, 6, 5\); in fit the shape was \(1, 6, 6\)"
    ):
        classifier.predict(IMAGE_ARRAY[:, :, :5])


@pytest.mark.parametrize(
    ("method", "epochs", "expected"),
    [
        ("erm", 30, [("erm", 30)]),
        ("group_dro", 30, [("group_dro", 30)]),
        ("bias_head", 5, [("bias_head", 5)]),
        ("jtt", 30, [("erm", 3), ("jtt", 30)]),
        ("lntl", 30, [("erm", 3), ("bias_head", 3), ("lntl", 30)]),
        ("conditional_adversary", 4, [("erm", 1), ("bias_head", 1), ("conditional_adversary", 4)]),
    ],
)
def test_a_method_has_the_documented_phases_before_it(
    method: str, epochs: int, expected: list[tuple[str, int]]
) -> None:
    phases = make_phases(method, epochs, {"seen": 1})
    assert [(phase["method"], phase["epochs"]) for phase in phases] == expected
    assert ["seen" in phase for phase in phases] == [False] * (len(phases) - 1) + [True]


def test_make_config_adds_required_model_settings_and_accepts_numpy_numbers() -> None:
    training = {"lr": 1}
    phases = [{"method": "domain_independent", "epochs": np.int64(3), "clip_grad_norm": np.float64(2)}]
    config = make_config("x", 7, {"name": "mlp", "hidden": (8, np.int64(4))}, {"phases": phases})
    assert config.model.heads == "per_bias"  # type: ignore[attr-defined]
    assert config.model.hidden == [8, 4]  # type: ignore[attr-defined]
    assert (config.project.seed, config.training.phases[0].epochs) == (7, 3)
    with pytest.raises(UserError, match=r"x: 1 error.*\n  training.lr: unknown key"):
        make_config("x", 7, {"name": "mlp"}, training | {"phases": phases})
