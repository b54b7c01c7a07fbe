"""A plug-in is a file of the package or a user's class, given by its dotted path."""

from pathlib import Path

import pytest

from lntl import plugins
from lntl.errors import UserError
from lntl.methods import load_method
from lntl.methods.base import Method
from lntl.methods.erm import ERM


def test_every_file_with_one_public_class_that_has_a_config_is_a_plugin() -> None:
    package = Path(plugins.__file__).parent
    assert set(plugins.names("lntl.methods")) == {p.stem for p in (package / "methods").glob("*.py")} - {
        "__init__",
        "base",
        "bias_classifier",
        "bias_labels",
        "last_layer",
        "posterior",
        "weights",
    }
    assert {"convnet", "lenet"} <= set(plugins.names("lntl.models"))
    assert "heads" not in plugins.names("lntl.models")
    assert "loader" not in plugins.names("lntl.data")


def test_a_plugin_is_loaded_by_its_name() -> None:
    assert load_method("erm") is ERM


def test_a_users_class_is_loaded_by_its_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_plugin.py").write_text(
        "from lntl.methods.erm import ERM\nclass Mine(ERM):\n    pass\nclass NoMethod:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert issubclass(load_method("users_plugin.Mine"), Method)
    with pytest.raises(UserError, match=r"'users_plugin\.NoMethod' is not a class that derives from lntl\.methods"):
        load_method("users_plugin.NoMethod")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ermm", r"'ermm' is not one of methods; did you mean 'erm'\?"),
        ("zzz", r"'zzz' is not one of methods; valid: badd, bias_contrastive, .*erm"),
        ("no_such_module.Method", r"cannot load 'no_such_module\.Method': .*PYTHONPATH"),
        ("lntl.methods.erm.Nothing", r"cannot load 'lntl\.methods\.erm\.Nothing'"),
        (".Method", "Method"),
        ("..Method", "Method"),
        ("erm.", "erm"),
    ],
)
def test_an_unknown_name_gives_one_sentence_with_the_nearest_valid_name(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_method(name)
