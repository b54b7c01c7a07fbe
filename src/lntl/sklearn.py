"""The methods as a scikit-learn estimator, fit(X, y, bias=...), for pipelines, searches and data frames."""

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_consistent_length, check_random_state
from sklearn.utils.extmath import softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from lntl import config as configuration
from lntl.config import Config
from lntl.data.array_file import as_tensor
from lntl.data.arrays import InMemory, label_columns, normalise_values
from lntl.data.labels import Column, as_text, normalise_spelling
from lntl.errors import UserError
from lntl.experiment import build
from lntl.experiment.build import methods_without_bias
from lntl.methods import load_method
from lntl.methods.base import Method
from lntl.models import append_eraser, load_model
from lntl.probing.features import features
from lntl.types import Networks

__all__ = ["DebiasedClassifier"]

Array = NDArray[Any]
_DTYPES = [np.float32, np.uint8]  # accepted types of X; X of another type is converted to the first
_FIT_DTYPES = [np.float64, *_DTYPES]  # float64 first, because float32 may lose digits of X
_BATCH_SIZE = 1000  # examples in one forward pass


class DebiasedClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that does not use a known bias, after Kim et al., "Learning Not to Learn", CVPR 2019.

    X is feature vectors (n, D) or images (n, H, W), (n, H, W, C) or (n, C, H, W), uint8 or float in [0, 1].
    Image channels are standardised internally to mean 0 and standard deviation 1. Vectors are not changed (use a
    StandardScaler), unless float32 would lose digits of a feature, such as a time stamp. Then all features are
    standardised in float64.

    Args:
        method: A name from `lntl methods`, e.g. "lntl", "group_dro", "bias_product", "erm" (plain training).
        model: "mlp"; for images also "convnet", "lenet", or a dict as in the YAML, e.g.
            {"name": "torchvision/resnet18", "split": "layer2", "small_images": True}.
        hidden: Units of each layer of f, for model "mlp"; the last is the number of features. `hidden` in a
            `model` dict takes precedence.
        epochs: Epochs of `method`. Adversarial methods and `jtt` first train f and g with `erm` for a tenth of this
            number. Adversarial methods then train only h for as many epochs.
        batch_size: Examples in one step.
        lr: Learning rate of Adam, for all networks.
        weight_decay: Weight decay of Adam, for all networks.
        mu: Scale of the reversed gradient, for methods with this setting; None for the method's default.
        lam: Weight of the information term, for methods with this setting; None for the method's default.
        ema: Decay per step of a moving average of the weights; predictions use this average. None: they use the last
            weights.
        method_settings: Further settings of the method, e.g. {"h_steps": 2}; `lntl methods NAME` prints them.
        phases: Training phases as in the YAML, a list of {"method": ..., "epochs": ..., ...}, instead of method,
            epochs, mu, lam and method_settings.
        device: auto, cpu, cuda, cuda:N or mps.
        random_state: An int, a RandomState or None; with an int the result is the same on each call, for the same
            number of threads (torch.set_num_threads): another number of threads may change the last bits.

    Attributes:
        classes_: The classes, in the order of the probabilities.
        n_features_in_: X.shape[1].
        feature_names_in_: Names of the columns of a data frame.
        input_shape_: Shape of one example.
        networks_: The trained f, g and h, on the CPU.
        history_: A dict per epoch: phase, method, epoch, and the means of the loss terms.

    Example:
        >>> import numpy as np
        >>> random = np.random.default_rng(0)
        >>> y, bias = np.arange(60) % 2, np.arange(60) // 2 % 2
        >>> X = np.stack([y, bias], axis=1) + random.normal(0, 0.1, (60, 2))
        >>> classifier = DebiasedClassifier("bias_product", epochs=5, random_state=0).fit(X, y, bias=bias)
        >>> classifier.predict(X).shape
        (60,)
    """

    def __init__(
        self,
        method: str = "lntl",
        model: str | dict[str, Any] = "mlp",
        *,
        hidden: tuple[int, ...] = (256, 128),
        epochs: int = 30,
        batch_size: int = 128,
        lr: float = 0.001,
        weight_decay: float = 0.0,
        mu: float | None = None,
        lam: float | None = None,
        ema: float | None = None,
        method_settings: dict[str, Any] | None = None,
        phases: list[dict[str, Any]] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.method, self.model, self.hidden = method, model, hidden
        self.epochs, self.batch_size, self.lr, self.weight_decay = epochs, batch_size, lr, weight_decay
        self.mu, self.lam, self.ema, self.method_settings, self.phases = mu, lam, ema, method_settings, phases
        self.device, self.random_state = device, random_state

    def fit(self, X: Any, y: Any, bias: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Args:
            X: Examples, vectors or images.
            y: Class of each example, (n,).
            bias: Bias label of each example, (n,), or (n, B) for several biases, strings or integers. None, NaN, NA, ""
                and -1 mean unknown. Methods that do not use the bias need no labels.
            sample_weight: Weight of each example, (n,), not negative. An example of weight 0 is left out. A training
                epoch draws n examples with replacement, with probabilities in proportion to the weights. If the
                method has sampling weights too, the two weights of an example are multiplied. Equal weights are
                the same as None. What a method counts before training, such as p(y given bias), counts each
                example once; methods that only fit the last layer accept no weights.

        Returns:
            The fitted classifier.

        Raises:
            ValueError: If X, y, bias and sample_weight do not match, or do not suit the method or the model.
        """
        _check_same_index(X=X, y=y, bias=bias, sample_weight=sample_weight)
        _check_integers(X)
        _check_no_missing(y)
        X, y = validate_data(self, X, y, dtype=_FIT_DTYPES, allow_nd=True)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_weights(sample_weight, X)
        check_consistent_length(X, bias)
        if weights is not None and not weights.all():
            rows = weights.nonzero()[0]
            X, y, weights = X[rows], y[rows], weights[rows]
            bias = None if bias is None else _select_bias(bias, rows)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has 1 class, {self.classes_[0]}; a classifier needs two")
        with _value_errors():
            config = self._config()
            _check_bias(config, bias)
            biases = [] if bias is None else label_columns(bias)
            if weights is not None and (weights != weights[0]).any():
                _check_weights_are_used(config)
            data = InMemory(as_tensor(X, "X"), labels, tuple(map(str, self.classes_)), biases)
            _warn_about_labels(self.classes_, biases)
            self._train(config, data, weights)
        return self

    def _train(self, config: Config, data: InMemory, weights: Array | None) -> None:
        with torch.random.fork_rng(devices=[]):  # do not change the caller's random state
            experiment = build(config, data=data)
            if weights is not None and (weights != weights[0]).any():
                experiment.trainer.loader.row_weights = torch.from_numpy(weights)
            self.history_ = [
                {"phase": record.phase, "method": record.method, "epoch": record.epoch, **record.metrics}
                for record in experiment.trainer
            ]
        self.networks_: Networks = experiment.trainer.evaluated.cpu().eval()
        self.input_shape_ = data.train.values.shape[1:]
        self._config_and_spec = (config.model_dump(), data.spec)
        self._mean, self._std = data.mean, data.std
        self._dtype = data.train.values.dtype
        self._device = str(experiment.device)
        self._n_features_out = len(self._features(data.train.values[:1])[0])

    def _config(self) -> Config:
        """Return the configuration for the parameters."""
        phases = self.phases
        if phases is None:
            weights = {"mu": self.mu, "lam": self.lam}
            settings = {name: value for name, value in weights.items() if value is not None}
            phases = make_phases(self.method, self.epochs, settings | (self.method_settings or {}))
        model = self.model if isinstance(self.model, dict) else {"name": self.model}
        if model.get("name") == "mlp":
            model = {"hidden": self.hidden} | model
        optimizer = {"name": "adam", "lr": self.lr, "weight_decay": self.weight_decay}
        training = {
            "device": self.device,
            "batch_size": self.batch_size,
            "ema": self.ema,
            "optimizer_fg": optimizer,
            "optimizer_h": optimizer,
            "phases": phases,
        }
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        return make_config(type(self).__name__, seed, model, training)

    def predict(self, X: Any) -> Array:
        """Return the class of each example.

        Args:
            X: Examples as in `fit`, vectors or images.

        Returns:
            One of `classes_` for each example, (n,).

        Raises:
            ValueError: If an example has another shape than the examples of `fit`.
            sklearn.exceptions.NotFittedError: If the classifier is not fitted.
        """
        index = self._logits(X).argmax(axis=1)
        predicted: Array = self.classes_[index]
        return predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy.

        Args:
            X: Examples as in `fit`.
            y: Class of each example, (n,).
            sample_weight: Weight of each example, (n,).

        Returns:
            The share of right predictions, in [0, 1].

        Raises:
            ValueError: If X, y and sample_weight do not match.
        """
        _check_same_index(X=X, y=y, sample_weight=sample_weight)
        accuracy: float = super().score(X, y, sample_weight)
        return accuracy

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Args:
            X: Examples as in `fit`.

        Returns:
            Probabilities, float64 (n, K), in the order of `classes_`.
        """
        logits = self._logits(X)
        p: Array = softmax(logits)
        return p

    def decision_function(self, X: Any) -> Array:
        """Return the logits.

        Args:
            X: Examples as in `fit`.

        Returns:
            Logits, float64 (n, K); for two classes the second logit minus the first, (n,).
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def transform(self, X: Any) -> Array:
        """Return the features z = f(x).

        Args:
            X: Examples as in `fit`.

        Returns:
            Features, float32 (n, C). Feature maps are flattened; large maps are averaged over a grid first.
        """
        with _value_errors():
            return self._features(self._validate(X))

    def _logits(self, X: Any) -> Array:
        x = self._validate(X)
        networks = self._networks_on_device()
        with torch.inference_mode():
            parts = [networks.g(networks.f(part)) for part in self._batches(x)]
        logits: Array = torch.cat(parts).cpu().double().numpy()
        return logits

    def _features(self, x: Tensor) -> Array:
        z: Array = features(self._networks_on_device(), self._batches(x), "f").flatten(1).numpy()
        return z

    def _validate(self, X: Any) -> Tensor:
        """Return X as a tensor after checking its shape; images are scaled like the training images."""
        check_is_fitted(self)
        _check_integers(X)
        if self._dtype == torch.float64 and str(getattr(X, "dtype", "")) in ("float32", "float16"):
            warnings.warn(
                f"X is {X.dtype}, but the classifier was fitted on float64 numbers, which lose digits in {X.dtype}",
                UserWarning,
                stacklevel=4,
            )
        dtypes = [np.float64] if self._dtype == torch.float64 else _DTYPES
        X = validate_data(self, X, reset=False, dtype=dtypes, allow_nd=True)
        with _value_errors():
            x = as_tensor(X, "X")
        if x.shape[1:] != self.input_shape_:
            raise ValueError(
                f"an example of X has the shape {tuple(x.shape[1:])}; in fit the shape was {tuple(self.input_shape_)}"
            )
        if x.dtype == self._dtype or x.dim() == 2:
            return x
        return x.float() / 255 if x.dtype == torch.uint8 else x * 255

    def _batches(self, x: Tensor) -> Iterator[Tensor]:
        for part in x.split(_BATCH_SIZE):
            yield normalise_values(part, self._mean, self._std).to(self._device)

    def _networks_on_device(self) -> Networks:
        return self.networks_ if self._device == "cpu" else copy.deepcopy(self.networks_).to(self._device)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, with weights instead of networks: library networks contain generated code."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"networks_": state["networks_"].state_dict()} if "networks_" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the pickled state on the CPU, because this machine may lack the device of `fit`."""
        super().__setstate__(state)
        if "networks_" in state:
            raw, spec = self._config_and_spec
            model = configuration.validate(raw, type(self).__name__).model
            with torch.random.fork_rng(devices=[]):
                self.networks_ = load_model(model.name)(spec, model)
                if model.eraser == "leace":
                    append_eraser(self.networks_, spec)
            self.networks_.eval()
            self._device = "cpu"
            self.networks_.to(memory_format=torch.channels_last).load_state_dict(state["networks_"])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _check_same_index(**arguments: Any) -> None:
    """Raise ValueError if pandas objects have different indexes, because rows are matched by position."""
    pandas = sys.modules.get("pandas")  # if pandas is not imported, no argument is a pandas object
    if pandas is None:
        return
    objects = {name: value for name, value in arguments.items() if isinstance(value, pandas.DataFrame | pandas.Series)}
    for name, value in objects.items():
        first = next(iter(objects))
        if len(value) == len(objects[first]) and not value.index.equals(objects[first].index):
            raise ValueError(
                f"{name} has another index than {first}, but rows are matched by position: give both the same order "
                f"and index, e.g. {name}.loc[{first}.index], or pass {name}.to_numpy() if the positions are right"
            )


def _check_integers(X: Any) -> None:
    """Raise ValueError for images of integers other than uint8, whose scale is unknown."""
    if isinstance(X, np.ndarray) and X.ndim > 2 and X.dtype.kind in "iu" and X.dtype != np.uint8:
        raise ValueError(f"X is {X.dtype} {X.shape}; give images as uint8, or as float in [0, 1]")


def _check_no_missing(y: Any) -> None:
    """Raise ValueError if labels are missing; NumPy cannot sort None and pandas.NA."""
    labels = np.asarray(y)
    if (
        y is not None
        and labels.dtype.kind == "O"
        and (missing := sum(as_text(label) == "" for label in labels.ravel()))
    ):
        raise ValueError(f"y has {missing} missing labels (None, NaN, NA or an empty text); leave these examples out")


def _warn_about_labels(classes: Array, biases: Sequence[Column]) -> None:
    """Warn about labels that count as missing or are merged, and about classes that look the same."""
    notes = [note for column in biases for note in column.notes]
    notes += [
        f"{column.name}: {', '.join(map(repr, column.missing))} means an unknown label; rename it if it is a value"
        for column in biases
        if column.missing
    ]
    spellings = [normalise_spelling(str(name)) for name in classes]
    if len(set(spellings)) < len(spellings):
        notes.append("y: some classes differ only in Unicode form, invisible characters or spaces")
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)


def _check_weights_are_used(config: Config) -> None:
    if ignoring := [method for method in _methods(config) if method.fits]:
        name = next(phase.method for phase in config.training.phases if load_method(phase.method) is ignoring[0])
        raise UserError(
            f"method {name} fits the last layer without weights, so sample_weight cannot be used; omit it, or use "
            "another method"
        )


def _check_weights(sample_weight: Any, X: Array) -> Array:
    """Return checked weights of examples, float64 (n,)."""
    weights: Array = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("sample_weight is 0 for every example; give some examples a positive weight")
    return weights


def _select_bias(bias: Any, rows: Array) -> Any:
    """Return the bias labels of some rows, as a data frame or series if `bias` is one."""
    return bias.iloc[rows] if hasattr(bias, "iloc") else np.asarray(bias, dtype=object)[rows]


def _check_bias(config: Config, bias: Any) -> None:
    if bias is None and any(method.sees_bias for method in _methods(config)):
        raise UserError(
            f"method {config.training.phases[-1].method} needs bias labels: call fit(X, y, bias=...), in a pipeline "
            "or a search with set_fit_request(bias=True) and metadata routing; methods without bias labels: "
            f"{', '.join(methods_without_bias())}"
        )


def make_phases(method: str, epochs: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the phases of a method with these settings: pre-training for a tenth of the epochs, then the method.

    An adversarial method starts after phases of erm and bias_head; jtt needs the errors of plain training. Methods that
    only fit the last layer (dfr, leace) get one epoch after plain training, on the training rows: there is no val.
    """
    if load_method(method).fits:
        return [{"method": "erm", "epochs": epochs}, {"method": method, "epochs": 1, "rows": "train"} | settings]
    trains = load_method(method).trains
    pretraining = ["erm", "bias_head"] if {"f", "h"} <= {*trains} else ["erm"] if method == "jtt" else []
    warm_up = [{"method": name, "epochs": max(1, epochs // 10)} for name in pretraining]
    return [*warm_up, {"method": method, "epochs": epochs} | settings]


def make_config(name: str, seed: int, model: dict[str, Any], training: dict[str, Any]) -> Config:
    """Return the configuration, with the model settings that its methods require; raises UserError with all errors."""
    project = {"experiment_name": name, "seed": seed}
    raw = _to_python_numbers({"project": project, "data": {"name": "arrays", "path": "memory"}, "training": training})
    config = configuration.validate(raw | {"model": _to_python_numbers(model)}, name)
    required = {key: value for method in _methods(config) for key, value in method.required_model_settings.items()}
    return configuration.validate(raw | {"model": _to_python_numbers(model) | required}, name) if required else config


def _methods(config: Config) -> list[type[Method]]:
    """Return the method of each phase."""
    return [load_method(phase.method) for phase in config.training.phases]


def _to_python_numbers(tree: Any) -> Any:
    """Return settings with NumPy numbers and tuples, which a search may pass, as Python numbers and lists."""
    if isinstance(tree, dict):
        return {key: _to_python_numbers(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_to_python_numbers(value) for value in tree]
    return tree.item() if isinstance(tree, np.generic) else tree


@contextmanager
def _value_errors() -> Iterator[None]:
    """Turn a UserError into a ValueError, which scikit-learn's users expect."""
    try:
        yield
    except UserError as error:
        message = str(error).replace("or set data.bias: [] to train without bias labels", "or omit bias")
        raise ValueError(message.replace("see data.missing", "give it another name if it is a value")) from error
