"""Arrays in memory, compared with the same arrays in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lntl.data.array_file import as_tensor
from lntl.data.arrays import Arrays, InMemory, label_columns
from lntl.errors import UserError
from lntl.types import IGNORE, Batch

N = 24
Y = np.arange(N) % 2
SKY = np.array(["day", "", "night"])[np.arange(N) % 3]
AGE = np.arange(N) // 5


def get_fields(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: getattr(batch, name) for name in Batch.__slots__}


@pytest.mark.parametrize("shape", [(4,), (6, 6), (6, 6, 3)], ids=str)
def test_arrays_in_memory_equal_the_training_split_of_a_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random((N, *shape), dtype=np.float32)
    rows = [*range(N), 0, 0]
    np.savez(
        tmp_path / "a.npz", x=x[rows], y=Y[rows], sky=SKY[rows], age=AGE[rows], split=["train"] * N + ["val", "test"]
    )
    normalise: Any = "train" if len(shape) > 1 else "none"
    config = Arrays.Config(
        path=str(tmp_path / "a.npz"),
        bias=["sky", "age"],
        split="split",
        normalise=normalise,  # type: ignore[list-item]
    )
    file_data = Arrays(config)
    memory_data = InMemory(
        as_tensor(x, "x"),
        Y,
        ("0", "1"),
        [*label_columns(pd.Series(SKY, name="sky")), *label_columns(pd.Series(AGE, name="age"))],
    )
    index = torch.arange(N)
    file_batch, memory_batch = (get_fields(data.splits["train"].batch(index)) for data in (file_data, memory_data))
    for name, value in file_batch.items():
        torch.testing.assert_close(memory_batch[name], value, rtol=0, atol=0)
    assert memory_data.spec.input_shape == file_data.spec.input_shape
    assert memory_data.spec.bias_value_names == file_data.spec.bias_value_names
    assert memory_data.spec.biases == file_data.spec.biases
    assert memory_data.spec.num_rows == N


def test_without_a_bias_all_bias_labels_are_unknown() -> None:
    data = InMemory(torch.zeros(N, 3), Y, ("a", "b"), [])
    batch = data.splits["train"].batch(torch.arange(N))
    assert (batch.bias == IGNORE).all()
    assert (batch.group == IGNORE).all()
    assert not batch.bias_features.any()
    assert (data.spec.num_bins, data.spec.num_bias_values, data.spec.aligned) == (1, 1, ())


LABEL_FORMS = {
    "list": (["b", "a", None, "b"], ["bias"], ("a", "b"), [1, 0, IGNORE, 1]),
    "numbers": (np.array([10, 2, -1, 10]), ["bias"], ("2", "10"), [1, 0, IGNORE, 1]),
    "floats": (np.array([10, 2, np.nan, 10]), ["bias"], ("2", "10"), [1, 0, IGNORE, 1]),
    "nullable": (pd.Series([10, 2, None, 10], dtype="Int64", name="age"), ["age"], ("2", "10"), [1, 0, IGNORE, 1]),
    "booleans": ([True, False, None, True], ["bias"], ("False", "True"), [1, 0, IGNORE, 1]),
    "1 and -1": (np.array([1, -1, IGNORE, 1]), ["bias"], ("-1", "1"), [1, 0, IGNORE, 1]),
    "missing texts": (["b", "a", " nan", "b "], ["bias"], ("a", "b"), [1, 0, IGNORE, 1]),
    "data frame": (pd.DataFrame({"sky": ["b", "a", "", "b"]}), ["sky"], ("a", "b"), [1, 0, IGNORE, 1]),
    "matrix": ([["b", "b"], ["a", "b"], ["", "a"], ["b", "a"]], ["bias 0", "bias 1"], ("a", "b"), [1, 0, IGNORE, 1]),
}  # fmt: skip


@pytest.mark.parametrize("form", LABEL_FORMS)
def test_labels_become_columns_in_memory(form: str) -> None:
    bias, names, values, code = LABEL_FORMS[form]
    columns = label_columns(bias)
    assert [column.name for column in columns] == names
    assert columns[0].values == values
    assert columns[0].code.tolist() == code


def test_invalid_labels_are_refused() -> None:
    with pytest.raises(UserError, match=r"bias is an array \(2, 2, 2\)"):
        label_columns(np.zeros((2, 2, 2)))
    with pytest.raises(UserError, match=r"age holds 37.5, which is not an integer"):
        label_columns(pd.Series([37.5, 2], name="age"))
