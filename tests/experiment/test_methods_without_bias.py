"""Methods that need bias labels, on data with and without them."""

from pathlib import Path

import numpy as np
import pytest

from lntl import config, plugins
from lntl.errors import UserError
from lntl.experiment import build
from lntl.experiment.build import methods_without_bias
from lntl.methods import load_method


def test_methods_without_bias_returns_the_methods_that_use_no_bias_labels() -> None:
    assert methods_without_bias() == ["debian", "erm", "jtt", "lff", "spectral_decoupling"]


@pytest.mark.parametrize("method", plugins.names("lntl.methods"))
def test_only_methods_without_bias_labels_train_on_data_without_them(tmp_path: Path, method: str) -> None:
    y = np.arange(40) % 2
    np.savez(tmp_path / "v.npz", x=np.stack([y, 1 - y], axis=1) + 0.1 * np.arange(40)[:, None], y=y)
    raw = {
        "project": {"experiment_name": "no_bias"},
        "data": {"name": "arrays", "path": str(tmp_path / "v.npz"), "bias": []},
        "model": {"name": "mlp", **load_method(method).required_model_settings},
        "training": {"device": "cpu", "batch_size": 8, "phases": [{"method": method, "epochs": 1}]},
    }
    settings = config.validate(raw, "test")
    if method in methods_without_bias():
        assert len(list(build(settings).trainer)) == 1
    else:
        message = rf"training\.phases\.0\.method: {method} needs bias labels, and no (training|val) example has one"
        with pytest.raises(UserError, match=message):
            build(settings)
