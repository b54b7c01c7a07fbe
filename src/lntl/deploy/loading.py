"""A trained run as a module that classifies: f and g with the transform of evaluation; neither h nor the data."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from lntl.data.eval_transform import EvalTransform, restored
from lntl.data.given import Images, Source
from lntl.data.loader import ahead
from lntl.errors import UserError
from lntl.experiment.build import device_arguments
from lntl.experiment.checkpoints import build_networks, evaluated_weights, fitting
from lntl.runs import checkpoint
from lntl.runs.folder import RunFolder

AT_ONCE = 256  # images that go through the networks together
SUFFIX = ".safetensors"
# What a classifier is made from, besides its weights.
DESCRIBED = {"class_names": list, "model": dict, "spec": dict, "transform": dict}


class Classifier(nn.Module):
    """f and g of a trained run, in evaluation mode, with everything that its use takes.

    class_names: the name of each class, in the order of the probabilities. transform: from images to x, as evaluation
    makes it. described: plain values from which the classifier can be made again: class_names, model, spec, transform;
    `data`, where it comes from a checkpoint, is that section of its configuration.
    """

    def __init__(self, f: nn.Module, g: nn.Module, transform: EvalTransform, described: Mapping[str, Any]) -> None:
        super().__init__()
        self.f, self.g, self.transform, self.described = f, g, transform, dict(described)
        self.class_names: tuple[str, ...] = tuple(described["class_names"])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes) of x as `transform` makes it."""
        logits: Tensor = self.g(self.f(x))
        return logits

    def predict(self, images: Images, batch_size: int = AT_ONCE) -> Tensor:
        """Return the probability of each class, float32 (N, classes) on the CPU.

        images: paths; PIL images; uint8 (N, H, W, 3) or (N, 3, H, W) in RGB, of any size where the run was trained on
        image files, which count as pictures in files do; float images (N, C, H, W) in [0, 1] that have the network's
        size; grey ones (N, H, W) where it takes one channel; where it takes vectors, numbers (N, D), as they are.
        """
        return self._over(images, lambda x: self(x).float().softmax(dim=1), batch_size)

    def features(self, images: Images, batch_size: int = AT_ONCE) -> Tensor:
        """Return z = f(x), what the bias was unlearned from: (N, C), (N, C, T) or (N, C, H, W); images as `predict`.

        With `model.split` it is what that layer answers, channels first; for convnet the map (N, 32, 14, 14).
        """
        return self._over(images, self.f, batch_size)

    @torch.inference_mode()
    def _over(self, images: Images, compute: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        source = self.transform.source(images)
        return torch.cat([compute(x).float().cpu() for x in self.batches(source, batch_size)])

    def batches(self, source: Source, batch_size: int = AT_ONCE) -> Iterator[Tensor]:
        """Yield x in batches on the classifier's device; the next ones are read meanwhile."""
        device = next(self.parameters()).device
        for x in ahead(source.load, torch.arange(len(source)).split(batch_size)):
            yield x.to(device)


def load(path: str | Path, device: str | None = None, trust: str | Sequence[str] = ()) -> Classifier:
    """Return the classifier of a run folder (its best checkpoint), of a checkpoint, or of a .safetensors export.

    device: auto, cpu (the default), cuda, cuda:N or mps. trust: modules that may be imported for a model of one's own;
    none is that is not named here or imported already. The data of the run are not needed. Raises UserError.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        described, weights = _exported(path)
    else:
        path = RunFolder.resolve(path, exports=True)
        described, weights = _trained(path)
    return made(described, weights, path, device or "cpu", trust)


def made(
    described: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    path: Path,
    device: str = "cpu",
    trust: str | Sequence[str] = (),
) -> Classifier:
    """Return the classifier of a description and of weights of f and g, those of h left out; `path` is their file."""
    with fitting(path):
        networks = build_networks(described["model"], described["spec"], str(path), trust)
        strange = networks.load_state_dict(weights, strict=False)
        if wrong := [*strange.unexpected_keys, *(k for k in strange.missing_keys if not k.startswith("h."))]:
            raise KeyError(wrong[0])
    transform = _transform(described, path)
    networks.to(Fabric(**device_arguments(device)).device).to(memory_format=torch.channels_last)
    return Classifier(networks.f, networks.g, transform, described)


def _transform(described: Mapping[str, Any], path: Path) -> EvalTransform:
    """Return the transform described; raises UserError where it or the names of the classes do not fit the networks."""
    kept, spec = described["transform"], described["spec"]
    blank = torch.zeros(1, *spec["input_shape"])
    try:
        if [*described["class_names"]] != [*spec["class_names"]] or len(spec["class_names"]) != spec["num_classes"]:
            raise ValueError(f"{len(described['class_names'])} names of {spec['num_classes']} classes")
        transform = restored(kept, workers=os.cpu_count() or 1)
        if missing := transform.settings().keys() - kept.keys():
            raise KeyError(*missing)
        if transform(blank).shape != blank.shape:
            raise ValueError("mean and std of other images")
    except (LookupError, TypeError, ValueError, RuntimeError, UserError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: what it tells of its data is damaged ({reason}); export or train it again") from error
    return transform


def _trained(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    saved = checkpoint.load(path)
    if saved.data is None:
        raise UserError(
            f"{path}: written by a version of lntl whose checkpoints do not say what their data look like, so it "
            f"cannot be used without them; train it again, or use `lntl eval {path}` where its data are"
        )
    sections = {name: saved.config[name] for name in ("data", "model")}
    learned = saved.data.model_dump(include={"spec", "transform"})
    return {**sections, "class_names": list(saved.data.spec.class_names), **learned}, evaluated_weights(saved)


def _exported(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"{path}: there is no such file; write one with lntl export RUN --format safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error})") from error
    described = {name: _value(texts.get(name, "")) for name in DESCRIBED}
    if missing := [name for name, kind in DESCRIBED.items() if not isinstance(described[name], kind)]:
        raise UserError(
            f"{path}: not an export of lntl, for its metadata do not tell {', '.join(missing)}; write one with "
            "lntl export RUN --format safetensors"
        )
    return described, weights


def _value(text: str) -> Any:
    """Return what a text of JSON says, None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
