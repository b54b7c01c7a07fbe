"""Run the command line on mutated files, one seeded mutation per case; each must give a result or an error sentence.

Usage: python scripts/fuzz.py [--share 0.01] [--seed 0] [--only KIND-NUMBER ...] [--processes 2]

    configs       a configuration: lntl train, for one epoch if it is still valid
    checkpoints   a checkpoint or an export: lntl eval, train --resume, probe, export, predict
    data          a table, an array file or an image: lntl train, data check, predict
    folders       a run folder: lntl report, eval, train --resume, card
    results       the lines of a benchmark: lntl compare, benchmark

A failure is one of these: a traceback (any exception except the exit of the command line); an exit code other than 0,
1, 2 and 130; exit code 2 without an error sentence; a line of more than 1,000 characters; a case that exceeds its time
limit; or code of a file that ran. To detect such code, pickles and configurations in the files call functions that
write a file, the canary. A training that takes too long gets Ctrl-C, and must then save its state and end.

Each failure is printed with its command and its name; --only NAME repeats it. Its files stay in the folder. The
outcomes of all cases are stored there, too, with the last line of each message. The exit code is 1 if there is a
failure.
"""

import argparse
import faulthandler
import io
import json
import multiprocessing
import os
import pickle
import queue
import resource
import shlex
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from types import FrameType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import torch
import yaml
from PIL import Image
from pydantic import BaseModel

from lntl import cli, plugins
from lntl.config import keys
from lntl.methods.base import Method
from lntl.runs import environment
from lntl.training import Phase
from lntl.types import Dataset, Networks

COUNTS = {"configs": 3000, "checkpoints": 600, "data": 700, "folders": 100, "results": 400}
MAX_PROCESSOR_SECONDS = 60  # processor time of a case; ten times that of the slowest valid case
MAX_SECONDS = 600  # time of a case on the clock, for a machine under load
TRAINING_SECONDS = 3  # processor time until a training gets Ctrl-C, because a million epochs are a valid setting
MAX_MEMORY = 12 * 2**30  # bytes of address space, including that of torch
MAX_LINE = 1000  # characters of a line on stderr, so that no message repeats a file
MEMORY_DISK = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp")
CANARY = "canary.txt"  # file in the folder of the cases
CANARY_MODULE = "from pathlib import Path\nPath('{}').write_text('imported')\n\nclass Config: ...\nclass Net: ...\n"


# --- the valid files that are mutated ---


def make_config(name: str, data: dict[str, Any], model: dict[str, Any], **sections: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that trains in less than a second."""
    return {
        "project": {"experiment_name": name, "seed": 0},
        "data": data,
        "model": model,
        "training": {"device": "cpu", "batch_size": 16, "ema": 0.9, "phases": [{"method": "erm", "epochs": 1}]},
        "logging": {"output_dir": "results", "use_tensorboard": False},
        "evaluation": {"best_model_metric": "accuracy", "erm_epochs": 0},
    } | sections


def write_templates(folder: Path) -> None:
    """Write data, configurations, trained runs and results into a folder."""
    rng, n = np.random.default_rng(0), 48
    y, bias = np.arange(n) % 2, np.arange(n) // 2 % 3
    np.savez(folder / "vectors.npz", x=rng.normal(size=(n, 5)).astype("f4"), y=y, bias=bias)
    np.savez(folder / "images.npz", x=rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), y=y, bias=bias)
    rows = ["image,label,bias,split"]
    (folder / "pictures").mkdir()
    for k in range(n):
        pixels, name = rng.integers(0, 256, (10, 9, 3), dtype=np.uint8), f"pictures/{k}.{('png', 'jpg', 'bmp')[k % 3]}"
        Image.fromarray(pixels).save(folder / name)
        rows.append(f"{name},{'ab'[y[k]]},{'uvw'[bias[k]]},{('train', 'val', 'test')[k // 16]}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    phases = [
        {"method": "erm", "epochs": 1},
        {"method": "bias_head", "epochs": 1},
        {"method": "lntl", "epochs": 1, "mu": 0.5},
    ]
    training = {"device": "cpu", "batch_size": 16, "phases": phases}
    table = {"name": "table", "path": "table.csv", "bias": "bias", "split": "split", "size": 8}
    mlp = {"name": "mlp", "hidden": [8]}
    configs = {
        "vectors": make_config("vectors", {"name": "arrays", "path": "vectors.npz"}, mlp),
        "images": make_config("images", {"name": "arrays", "path": "images.npz"}, mlp, training=training),
        "table": make_config("table", table, {"name": "lenet"}),
    }
    os.chdir(folder)
    for name, raw in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        assert run_command(["train", f"{name}.yaml"])[0] == 0, name
        assert run_command(["eval", f"results/{name}"])[0] == 0, name
    assert run_command(["export", "results/vectors", "--format", "safetensors", "--out", "model.safetensors"])[0] == 0
    plan = {
        "name": "plan",
        "seeds": [0, 1],
        "runs": [{"name": "erm", "config": "vectors.yaml", "grid": {"training.batch_size": [8, 16]}}],
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert run_command(["benchmark", "plan.yaml", "--workers", "2"])[0] == 0
    (folder / "canary_module.py").write_text(CANARY_MODULE.format(folder.parent / CANARY))


# --- mutations ---

UNUSUAL_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3.5,
        -0.0,
        1e-300,
        1e39,
        1e308,
        float("nan"),
        float("inf"),
        10**9,
        10**30,
        -(2**63),
    ),
    *(
        "",
        " ",
        "a",
        "no",
        "null",
        "0x1F",
        "1e3",
        "~",
        "../..",
        "/dev/null",
        "/proc/self/mem",
        "%s{0}",
        "nan",
        "x" * 5000,
    ),
    *("\u732b", "e\u0301", "\u200b", "a\nb", "a\tb", "=1+2", "<b>&", "[red]", "a\0b", "\x1b[2J"),
    *("canary_module.Net", "os.system", "pickle.loads", "builtins.exec", {"from": "pickle.loads"}),
    *([], [[]], [None], [0] * 100, [1, "a"], {}, {"": 1}, {"name": 1}, {"a": {"b": []}}),
)
UNUSUAL_TEXTS = (
    *(
        "\0",
        "\ufeff",
        "\u2028",
        "\u202e",
        "\u732b",
        "\ud800",
        "\n",
        "\r",
        "\t",
        ":",
        "- ",
        "{",
        "[",
        "'",
        '"',
        "#",
        ",",
    ),
    *("&a ", "*a", "<<: ", "!!int ", "!!python/object/apply:os.system ['touch x'] ", "---\n", "9" * 400, "[" * 300),
    *("0", "-", "e", ".", "|", "%", "@"),
)


def mutate_tree(tree: Any, rng: Random, unusual_values: tuple[Any, ...] = UNUSUAL_VALUES) -> Any:
    """Return a copy of nested dicts and lists with one to three nodes changed, removed, renamed or doubled."""
    root = [copy_tree(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parent, key = rng.choice(list(iterate_positions(root)))
        kind = rng.randrange(8)
        if kind == 0 and parent is not root:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "name", f"{key}s", 3, None, "\u00e9", f"{key}"[::-1]))] = parent.pop(key)
        elif kind == 2:
            parent[key] = [copy_tree(parent[key])] * rng.choice((1, 2, 50))
        elif kind == 3:
            other_parent, other = rng.choice(list(iterate_positions(root)))
            parent[key] = copy_tree(other_parent[other])
        elif kind == 4 and isinstance(parent[key], int | float):
            parent[key] = parent[key] * rng.choice((-1, 0, 2, 0.5, 1000, 1e12))
        elif kind == 5 and isinstance(parent[key], str):
            parent[key] = mutate_text(parent[key], rng)
        else:
            parent[key] = copy_tree(rng.choice(unusual_values))  # cloned, because later mutations change it
    return root[0]


def copy_tree(tree: Any) -> Any:
    """Return a copy of the dicts and lists; leaves are shared."""
    if isinstance(tree, dict):
        return {key: copy_tree(value) for key, value in tree.items()}
    return [copy_tree(value) for value in tree] if isinstance(tree, list) else tree


def iterate_positions(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of each node."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(items):
        yield tree, key
        if isinstance(value, dict | list):
            yield from iterate_positions(value)


def mutate_text(text: str, rng: Random) -> str:
    """Return a text with some characters changed, removed, doubled or inserted."""
    characters = list(text)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(characters) + 1)
        kind = rng.randrange(4)
        if kind == 0 and characters:
            del characters[at : at + rng.choice((1, 3, 30))]
        elif kind == 1:
            characters[at:at] = characters[at : at + rng.choice((1, 10, 200))]
        else:
            characters[at:at] = rng.choice(UNUSUAL_TEXTS)
    return "".join(characters)


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """Return bytes with some bits flipped, bytes replaced, parts removed, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(max(1, len(data))), rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + rng.choice((1, 16, 500))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 16, 500)))
        elif kind == 4:
            data[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1)))
        elif data:
            data[at] = rng.choice((0, 255, 10, 34, 44))
    return bytes(data)


class Code:
    """An object whose pickle writes the canary when it is loaded."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


def make_gadget(rng: Random, canary: Path) -> Code:
    """Return one of several ways to run code from a pickle."""
    source = f"open({str(canary)!r}, 'w').write('ran')"
    return rng.choice(
        (
            Code(os.system, f"touch {canary}"),
            Code(exec, source),
            Code(eval, source),
            Code(open, str(canary), "w"),
            Code(Path.write_text, canary, "ran"),
            Code(np.save, str(canary), np.zeros(1)),
            Code(torch.save, 1, str(canary)),
            Code(shutil.copyfile, __file__, str(canary)),
        )
    )


def mutate_checkpoint(path: Path, rng: Random, canary: Path) -> None:
    """Damage or forge a checkpoint or an export."""
    kind = rng.randrange(6)
    if path.suffix == ".safetensors":
        path.write_bytes(mutate_bytes(path.read_bytes(), rng) if kind < 3 else mutate_header(path.read_bytes(), rng))
    elif kind < 2:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    elif kind == 2:
        forge(path, rng, canary)
    else:
        tree = torch.load(path, weights_only=True)
        part = rng.choice((tree, tree, tree["config"], tree["data"], tree["trainer"], tree["records"]))
        tensors = (torch.zeros(0), torch.zeros(3, 2, 1), torch.full((5,), torch.nan), torch.zeros(2, dtype=torch.int64))
        changed = mutate_tree(part, rng, UNUSUAL_VALUES + tensors * 3)
        if part is not tree:
            name = next(name for name in tree if tree[name] is part)
            tree[name] = changed
            changed = tree
        torch.save(changed, path)


def forge(path: Path, rng: Random, canary: Path) -> None:
    """Put code into a checkpoint: in place of the file, into its archive, or among its values."""
    kind = rng.randrange(4)
    code = make_gadget(rng, canary)
    if kind == 0:
        path.write_bytes(pickle.dumps(code, rng.choice((0, 2, 4))))
    elif kind == 1:
        torch.save(code, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    elif kind == 2:
        tree = torch.load(path, weights_only=True)
        tree[rng.choice(("format", "config", "trainer", "records", "data", "more"))] = code
        torch.save(tree, path)
    else:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name, content in files.items():
                damaged = pickle.dumps(code, 2) if name.endswith("data.pkl") else mutate_bytes(content, rng)
                archive.writestr(name, damaged if name.endswith("data.pkl") or rng.random() < 0.2 else content)


def mutate_header(content: bytes, rng: Random) -> bytes:
    """Change the JSON at the head of a .safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.7:  # one of its descriptions, which are JSON texts
        name = rng.choice(list(header["__metadata__"]))
        header["__metadata__"][name] = json.dumps(mutate_tree(parse_json(header["__metadata__"][name]), rng))
    else:
        header = mutate_tree(header, rng)
    text = json.dumps(header).encode(errors="replace")
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text, or the text itself if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def mutate_array_file(path: Path, rng: Random, canary: Path) -> None:
    """Change an .npz file: bytes, an array, a header of another size, an array of objects."""
    kind = rng.randrange(6)
    if kind == 0:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return
    with np.load(path) as file:
        arrays: dict[str, Any] = dict(file)
    name = rng.choice(list(arrays))
    array = arrays[name]
    if kind == 1:
        arrays.pop(name)
    elif kind == 2:
        numbers = array.astype(float)
        other_arrays = (
            array[:-1],
            array[:0],
            array[None],
            array[..., None],
            np.array(5),
            np.arange(len(array)).astype(str),
        )
        converted_arrays = [array.astype(dtype) for dtype in (str, complex, "M8[s]", bool)]
        arrays[name] = rng.choice((*other_arrays, *converted_arrays, numbers * np.nan, numbers * 1e300, -numbers))
    elif kind == 3:
        arrays[name] = np.array([make_gadget(rng, canary)] * len(array), dtype=object)
    elif kind == 4:
        arrays[rng.choice(("group_id", "split", "y_names", "bias_names", "extra"))] = rng.choice(
            (array, array.astype(str))
        )
    np.savez(path, **arrays)
    if kind == 5:  # a header with other sizes
        shapes = ("(1000000000000, 5)", "(-1, 5)", "(0,)", "()", "(48, 5, 7)", "(99999999999999999999,)")
        content = path.read_bytes()
        at = content.find(b"'shape': (")
        shape = rng.choice(shapes).encode()
        end = content.find(b")", at) + 1
        path.write_bytes(content[:at] + b"'shape': " + shape + content[end + len(shape) - (end - at) + 9 :])


# --- one case of each kind: prepare files in the working directory, return the command ---


def configs_case(rng: Random, canary: Path) -> list[str]:
    """Mutate a configuration as text or as a tree."""
    name = rng.choice(("vectors", "vectors", "vectors", "images", "table"))
    path = Path("c.yaml")
    text = Path(f"{name}.yaml").read_text()
    kind = rng.random()
    if kind < 0.3:
        text = mutate_text(text, rng)
    else:
        raw = yaml.safe_load(text)
        section = rng.choice(list(raw))
        if kind < 0.65:
            change_settings(raw, rng)
        elif kind < 0.9:
            raw[section] = mutate_tree(raw[section], rng)
        else:
            raw = mutate_tree(raw, rng)
        text = yaml.safe_dump(raw, allow_unicode=True)
    path.write_bytes(text.encode(errors="surrogatepass"))
    override = ["--", f"{rng.choice(('training', 'data', 'model.hidden', 'x.y', ''))}={rng.choice(UNUSUAL_VALUES)!r}"]
    verbs = ("train --overwrite", "train --overwrite --epochs 1", "data info", "data check --no-images")
    verb = rng.choice(verbs[:1] + verbs).split()
    return [*verb, "c.yaml", *(override if rng.random() < 0.1 else [])]


NUMBERS = (0, 1, 2, 3, 0.0, 0.01, 0.5, 0.99, 1.0, 1.5, -1, 1e-30, 1e30, 1e39, 10**6, 10**9, 10**12, 10**30)
VALUES: dict[Any, tuple[Any, ...]] = {
    bool: (True, False),
    int: (0, 1, 2, 3, 7, 16, 1000, 10**6),
    float: (0.0, 1e-30, 0.01, 0.5, 0.99, 1.0, 2.5, 100.0, 1e6, 1e9),
    str: (
        "bias",
        "label",
        "image",
        "split",
        "x",
        "y",
        "table.csv",
        "vectors.npz",
        "pictures",
        "cpu",
        "brightness",
        "a",
    ),
    type(None): (None,),
}


def draw_value(annotation: Any, rng: Random) -> Any:
    """Return a random value of a type."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if rng.random() < 0.1:
        return rng.choice(NUMBERS)
    if origin is Literal:
        return rng.choice(parts)
    if origin is Annotated:
        return draw_value(parts[0], rng)
    if origin in (Union, UnionType):
        return draw_value(rng.choice(parts), rng)
    if origin is list:
        return [draw_value(parts[0], rng) for _ in range(rng.choice((0, 1, 2, 3)))]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {
            key: draw_value(field.annotation, rng)
            for key, field in annotation.model_fields.items()
            if field.is_required() or rng.random() < 0.4
        }
    return rng.choice(VALUES.get(annotation, NUMBERS))


def change_settings(raw: dict[str, Any], rng: Random) -> None:
    """Set one to three existing keys to values of their types, change the method, or add a phase.

    The configuration often stays valid.
    """
    training, phases = raw["training"], raw["training"]["phases"]
    methods = [name for name in plugins.names("lntl.methods") if name != "erm"]
    for _ in range(rng.choice((1, 2, 3))):
        phase, kind = phases[-1], rng.randrange(8)
        if kind == 0:
            phases.append({"method": rng.choice(methods), "epochs": 1})
        elif kind == 1:
            phases[-1] = {"method": rng.choice(methods), "epochs": 1}
        elif kind == 2:
            method = plugins.load("lntl.methods", phase["method"], Method)
            change_key(phase, [method.Config, Phase], rng)
        elif kind == 3:
            change_key(training, [keys.Training], rng, except_key="phases")
        elif kind == 4:
            change_key(raw["model"], [plugins.load("lntl.models", raw["model"]["name"], Networks).Config], rng)
        elif kind == 5:
            data = plugins.load("lntl.data", raw["data"]["name"], Dataset)  # type: ignore[type-abstract]
            change_key(raw["data"], [data.Config], rng)
        else:
            name, section = rng.choice((("evaluation", keys.Evaluation), ("logging", keys.Logging)))
            change_key(raw[name], [section], rng, except_key="output_dir")


def change_key(section: dict[str, Any], settings: list[type[BaseModel]], rng: Random, except_key: str = "") -> None:
    """Set a random key of a section, but not `except_key`, to a value of its type."""
    fields = {
        key: field for part in settings for key, field in part.model_fields.items() if key not in (except_key, "method")
    }
    if fields:
        key = rng.choice(list(fields))
        section[key] = draw_value(fields[key].annotation, rng)


def checkpoints_case(rng: Random, canary: Path) -> list[str]:
    """Mutate a checkpoint or an export, in its run folder or alone."""
    name = rng.choice(("vectors", "vectors", "images", "table"))
    if rng.random() < 0.15:
        mutate_checkpoint(Path("model.safetensors"), rng, canary)
        return ["predict", "model.safetensors", "vectors.npz", "--out", "p.csv"]
    last = rng.random() < 0.4
    path = Path("results", name, "checkpoints", "last.pth" if last else "best_model.pth")
    mutate_checkpoint(path, rng, canary)
    if last:
        return ["train", f"{name}.yaml", "--resume", "auto"]
    target = str(path)
    if rng.random() < 0.4:
        target = shutil.move(path, "alone.pth")
    commands = (
        *(
            "eval TARGET",
            "eval TARGET",
            "probe TARGET --seeds 1",
            "export TARGET --format safetensors --out o.safetensors",
        ),
        *("predict TARGET vectors.npz --out p.csv", "predict TARGET pictures --out p.csv"),
    )
    return rng.choice(commands).replace("TARGET", target).split()


def data_case(rng: Random, canary: Path) -> list[str]:
    """Mutate a table, an array file or an image."""
    kind = rng.choice(("table", "vectors", "images", "picture", "folder"))
    if kind == "table":
        path = Path("table.csv")
        content = path.read_bytes()
        lines = content.decode().splitlines()
        if rng.random() < 0.5:
            path.write_bytes(mutate_bytes(content, rng))
        else:
            for _ in range(rng.choice((1, 3, 20))):
                at = rng.randrange(len(lines))
                lines[at] = rng.choice((mutate_text(lines[at], rng), "", lines[at] + ",x", lines[0], lines[-1]))
            path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    elif kind in ("vectors", "images"):
        mutate_array_file(Path(f"{kind}.npz"), rng, canary)
    else:
        for path in rng.sample(sorted(Path("pictures").iterdir()), rng.choice((1, 3))):
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        if rng.random() < 0.1:
            path.unlink()
            path.mkdir()
    name = kind if kind in ("vectors", "images") else "table"
    inputs = {"vectors": "vectors.npz", "images": "images.npz", "folder": "pictures"}.get(kind, "table.csv")
    skip = name == "table" and rng.random() < 0.3
    commands = (
        *(
            f"train {name}.yaml --overwrite",
            f"data check {name}.yaml",
            f"data info {name}.yaml",
            f"eval results/{name}",
        ),
        f"predict results/{name} {inputs} --out p.csv --on-error {rng.choice(('stop', 'skip'))}",
    )
    command = rng.choice(commands).split()
    return [*command, "data.on_error=skip"] if command[0] in ("train", "data") and skip else command


def folders_case(rng: Random, canary: Path) -> list[str]:
    """Damage, remove or replace files of a run folder."""
    run = Path("results", rng.choice(("vectors", "images", "table")))
    for _ in range(rng.choice((1, 1, 2, 4))):
        paths = sorted(p for p in run.rglob("*") if p.exists() and not p.is_symlink())
        path = rng.choice([p for p in paths if p.suffix != ".pth" or rng.random() < 0.2])
        kind = rng.randrange(8)
        if kind == 0:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif kind == 1:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            path.symlink_to(rng.choice((path, run, Path("/dev/null"), Path("nowhere"))))
        elif path.is_dir():
            (path / rng.choice(("checkpoint_epoch_02_copy.pth", "x.json", "last.pth", "\u732b"))).write_bytes(
                rng.randbytes(9)
            )
        elif kind == 2:
            path.write_bytes(b"")
        elif kind == 3:
            path.unlink()
            path.mkdir()
        elif kind == 4 and path.suffix == ".json":
            path.write_text(json.dumps(mutate_tree(parse_json(path.read_text(errors="replace")), rng)))
        elif kind == 5 and path.suffix == ".yaml":
            path.write_text(yaml.safe_dump(mutate_tree(parse_yaml(path.read_text(errors="replace")), rng)))
        else:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    resume = ["train", f"{run.name}.yaml", "--resume", "auto"]
    commands = [["report", str(run)], ["report", str(run)], ["card", str(run)], ["eval", str(run)], resume, resume]
    return rng.choice(commands)


def results_case(rng: Random, canary: Path) -> list[str]:
    """Mutate the lines of a benchmark's results, or its plan."""
    path = Path("results.jsonl")
    lines = path.read_text().splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(lines))
        if rng.random() < 0.7:
            lines[at] = json.dumps(mutate_tree(parse_json(lines[at]), rng))
        else:
            lines[at] = mutate_text(lines[at], rng)
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    if rng.random() < 0.2:
        plan = Path("plan.yaml")
        plan.write_text(yaml.safe_dump(mutate_tree(yaml.safe_load(plan.read_text()), rng)))
    compare = ["compare", "results.jsonl", "--out", "tables"]
    by = ["--by", "training.batch_size"]
    return rng.choice(
        (compare, compare, [*compare, *by], [*compare, "--metric", "x"], ["benchmark", "plan.yaml", "--dry-run"])
    )


CASES = {
    "configs": configs_case,
    "checkpoints": checkpoints_case,
    "data": data_case,
    "folders": folders_case,
    "results": results_case,
}


# --- running ---


class Hang(BaseException):
    """A case exceeded its time limit."""


class Alarm:
    """Signal handler that raises Hang; if `stops_first`, it sends Ctrl-C the first time."""

    stops_first = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the signal."""
        if not self.stops_first:
            raise Hang
        self.stops_first = False
        signal.raise_signal(signal.SIGINT)


def run_command(arguments: list[str]) -> tuple[int, str]:
    """Run `lntl ARGUMENTS` in this process; return its exit code and what it wrote to stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = stop.code
        finally:
            for handler in cli.console.log.handlers:
                handler.close()
            cli.console.log.handlers = []
    err.flush()
    text = err.buffer.getvalue().decode(errors="replace")
    return code or 0, text


def run_case(name: str, seed: int, templates: Path) -> tuple[str, str, list[str]]:
    """Run a case in a fresh copy of the templates.

    Returns its outcome, the reason why it is a failure ("" if it is not a failure), and its command.
    """
    kind = name.rpartition("-")[0]
    rng = Random(f"{seed} {name}")
    folder, canary = templates.parent / name, templates.parent / f"{name}.{CANARY}"
    unused = ("results",) if kind in ("configs", "results") else ()
    shutil.copytree(templates, folder, ignore=lambda path, _: unused if Path(path) == templates else ())
    os.chdir(folder)
    (folder / "canary_module.py").write_text(CANARY_MODULE.format(canary))
    sys.path.insert(0, str(folder))
    command: list[str] = []
    outcome, reason, text = "", "", ""
    timers = {
        signal.SIGALRM: (signal.ITIMER_REAL, MAX_SECONDS),
        signal.SIGPROF: (signal.ITIMER_PROF, MAX_PROCESSOR_SECONDS),
    }
    alarms = {number: Alarm() for number in timers}
    handlers = {number: signal.signal(number, alarm) for number, alarm in alarms.items()}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    faulthandler.dump_traceback_later(2 * MAX_SECONDS, exit=True)  # if a loop in C receives no signal
    try:
        command = CASES[kind](rng, canary)
        if command[0] == "train":
            signal.setitimer(signal.ITIMER_PROF, TRAINING_SECONDS, MAX_PROCESSOR_SECONDS)
            alarms[signal.SIGPROF].stops_first = True
        code, text = run_command(command)
        outcome = {0: "worked", 1: "not trustworthy", 2: "refused", 130: "stopped"}.get(code, f"exit {code}")
        reason = find_fault(code, text)
    except Hang:
        limits = f"longer than {MAX_PROCESSOR_SECONDS} processor seconds or {MAX_SECONDS} s"
        outcome, reason = "hang", f"{limits}\n{traceback.format_exc(limit=-6)}"
    except BaseException:  # noqa: BLE001 - any exception is a failure to report
        outcome, reason = "traceback", traceback.format_exc(limit=-8)
    finally:
        for number, handler in handlers.items():
            signal.setitimer(timers[number][0], 0)
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()
        sys.path.remove(str(folder))
        sys.modules.pop("canary_module", None)
        os.chdir(templates.parent)
    if canary.exists() and kind != "configs":  # a configuration comes from the user and may name code
        outcome, reason = "code ran", f"the canary says: {canary.read_text(errors='replace')[:80]}\n{reason}"
    canary.unlink(missing_ok=True)
    with (templates.parent / f"outcomes-{os.getpid()}.txt").open("a", errors="replace") as log:
        print(name, outcome, shlex.join(command)[:200], text.strip().rpartition("\n")[2][:300], sep="\t", file=log)
    if not reason:
        shutil.rmtree(folder)
    return outcome, reason, command


def find_fault(code: int, text: str) -> str:
    """Return why an exit code and its message are a failure; "" if they are not a failure."""
    if code not in (0, 1, 2, 130):
        return f"exit code {code}: {text[-300:]}"
    if "Traceback" in text or "Exception ignored" in text:
        return text[-1500:]
    if code == 2 and not text.startswith(("Error: ", "Usage: ")) and "\nError: " not in text:
        return f"exit code 2 without a sentence: {text[-300:]}"
    longest = max(text.splitlines(), key=len, default="")
    return f"a line of {len(longest)} characters: {longest[:300]}" if len(longest) > MAX_LINE else ""


def run_cases(names: list[str], seed: int, templates: Path, results: "multiprocessing.Queue[tuple[str, Any]]") -> None:
    """Run cases in this process; send the name and the outcome of each."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    os.fsync = lambda fd: None  # saves time; the cases do not test power cuts
    environment._read_git_commit = lambda: None  # saves two processes per run
    for name in names:
        start = time.process_time()
        results.put((name, (*run_case(name, seed, templates), time.process_time() - start)))


def main() -> int:
    """Run the cases on some processes; print counts and failures; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases of each kind to run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], metavar="KIND-NUMBER", help="run only these cases or kinds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=MEMORY_DISK / "lntl-fuzz", help="for the files of failures")
    arguments = parser.parse_args()
    names = [f"{kind}-{k}" for kind, count in COUNTS.items() for k in range(max(1, round(count * arguments.share)))]
    selection = set(arguments.only)
    if selection:
        names = [name for name in names if name in selection or name.rpartition("-")[0] in selection]
    names = names or sorted(selection)
    Random(arguments.seed).shuffle(names)  # so that an interrupted run has cases of all kinds
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    templates = folder / "templates"
    templates.mkdir(parents=True)
    start = time.monotonic()
    write_templates(templates)
    outcomes, seconds, failures = run_all(names, arguments.seed, templates, arguments.processes)
    for kind in COUNTS:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes[kind].items()))
        print(f"{kind}: {sum(outcomes[kind].values())} cases in {seconds[kind]:.0f} s: {counts or 'none'}")
    count = Counter(outcome for counter in outcomes.values() for outcome in counter.elements())
    print(
        f"{len(failures)} failures: {count['traceback']} tracebacks, {count['hang'] + count['died']} hangs, "
        f"{count['code ran']} code runs; seed {arguments.seed}; {sum(seconds.values()):.0f} s of the processor, "
        f"{time.monotonic() - start:.0f} s in all on {arguments.processes} processes"
    )
    return 1 if failures else 0


def run_all(
    names: list[str], seed: int, templates: Path, processes: int
) -> tuple[dict[str, Counter[str]], dict[str, float], list[str]]:
    """Run the cases, and print each failure; return the outcomes and seconds by kind, and the names of failures."""
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in COUNTS}
    seconds_by_kind = dict.fromkeys(COUNTS, 0.0)
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    queues = [names[k::processes] for k in range(processes)]
    workers: list[Worker] = []
    while queues or workers:
        workers += [Worker(context, todo, seed, templates) for todo in queues if todo]
        queues = []
        time.sleep(0.05)
        for worker in list(workers):
            is_alive = worker.process.is_alive()  # read before the last outcomes in the queue
            for name, (outcome, reason, command, seconds) in worker.pop_outcomes():
                kind = name.rpartition("-")[0]
                outcomes[kind][outcome] += 1
                seconds_by_kind[kind] += seconds
                if reason:
                    failures.append(name)
                    print(f"--- {name} ({seconds:.0f} s): lntl {' '.join(command)[:200]}\n{reason}", flush=True)
            if is_alive:
                continue
            workers.remove(worker)
            if worker.todo:  # the process died in the first of these cases
                name, *rest = worker.todo
                queues.append(rest)
                failures.append(name)
                outcomes[name.rpartition("-")[0]]["died"] += 1
                print(f"--- {name}: the process died, exit code {worker.process.exitcode}", flush=True)
    return outcomes, seconds_by_kind, failures


class Worker:
    """A process that runs cases; `todo` has the cases without an outcome."""

    def __init__(self, context: Any, todo: list[str], seed: int, templates: Path) -> None:
        self.todo, self.queue = todo, context.Queue()
        self.process = context.Process(target=run_cases, args=(todo, seed, templates, self.queue), daemon=True)
        self.process.start()

    def pop_outcomes(self) -> Iterator[tuple[str, tuple[str, str, list[str], float]]]:
        """Yield the outcomes of the cases that ended after the last call."""
        while True:
            try:
                name, outcome = self.queue.get(timeout=0.1 if not self.process.is_alive() else 0)
            except queue.Empty:
                return
            self.todo = [other for other in self.todo if other != name]
            yield name, outcome


if __name__ == "__main__":
    sys.exit(main())
