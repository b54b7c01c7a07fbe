"""Load a trained run as a classifier module: f and g with the evaluation transform; h and the data are not needed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lntl.config import check_trusted
from lntl.data.eval_transform import EvalTransform, ImageInput, Source, restore
from lntl.data.loader import ahead
from lntl.errors import UserError
from lntl.experiment.build import find_device
from lntl.experiment.checkpoints import build_networks, check_fit, evaluated_weights
from lntl.runs import checkpoint
from lntl.runs.checkpoint import NotFiniteError
from lntl.runs.folder import EXPORT_SUFFIX, RunFolder

BATCH_SIZE = 256  # images in one forward pass
DIGEST_KEY = "sha256"  # key in an export's metadata: digest of its weights and its other metadata
# Fields from which a classifier is built, besides its weights, and their types.
DESCRIPTION = {"class_names": list, "model": dict, "spec": dict, "transform": dict}


class Classifier(nn.Module):
    """f and g of a trained run, in evaluation mode; `lntl.load` returns it.

    Attributes:
        f: The feature extractor.
        g: The task head.
        class_names: The name of each class, in the order of the probabilities.
        transform: The evaluation transform from images to x.
        description: Plain values from which the classifier can be built again: class_names, model, spec, transform; for
            a checkpoint also `data`, the section `data` of its configuration.

    Example:
        >>> classifier = lntl.load("results/colored_mnist_lntl")  # doctest: +SKIP
        >>> classifier.predict(["a.png", "b.png"]).argmax(dim=1)  # doctest: +SKIP
    """

    def __init__(self, f: nn.Module, g: nn.Module, transform: EvalTransform, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.f, self.g, self.transform, self.description = f, g, transform, dict(description)
        self.class_names: tuple[str, ...] = tuple(description["class_names"])
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits.

        Args:
            x: Network input from `transform`, float (N, C, H, W) or (N, D).

        Returns:
            Logits (N, classes).
        """
        logits: Tensor = self.g(self.f(x))
        return logits

    def predict(self, images: ImageInput, batch_size: int = BATCH_SIZE) -> Tensor:
        """Return the probability of each class.

        Args:
            images: Paths; PIL images; uint8 images (N, H, W, 3) or (N, 3, H, W) in RGB (of any size if the run was
                trained on image files, because they are resized like files); float images (N, C, H, W) in [0, 1] of the
                network's size; gray images (N, H, W) for one channel; vectors (N, D), not normalised.
            batch_size: Images in one forward pass.

        Returns:
            Probabilities, float32 (N, classes) on the CPU.

        Raises:
            UserError: If images cannot be read or have a wrong shape, or if probabilities are not finite.
        """
        probabilities = self._compute_in_batches(images, lambda x: self(x).float().softmax(dim=1), batch_size)
        check_probabilities(probabilities)
        return probabilities

    def features(self, images: ImageInput, batch_size: int = BATCH_SIZE) -> Tensor:
        """Return the features z = f(x), from which the bias was unlearned.

        Args:
            images: As for `predict`.
            batch_size: As for `predict`.

        Returns:
            Features, float32 (N, C), (N, C, T) or (N, C, H, W) on the CPU: the output of the layer `model.split`,
            channels first; for convnet the map (N, 32, 14, 14).
        """
        return self._compute_in_batches(images, self.f, batch_size)

    @torch.inference_mode()
    def _compute_in_batches(self, images: ImageInput, compute: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        source = self.transform.source(images)
        return torch.cat([compute(x).float().cpu() for x in self.batches(source, batch_size)])

    def batches(self, source: Source, batch_size: int = BATCH_SIZE) -> Iterator[Tensor]:
        """Read images in batches; the next batches are read while the current one is used.

        Args:
            source: Images from `transform.source`.
            batch_size: Images in one batch.

        Yields:
            Network input x on the device of the classifier.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size} and must be at least 1")
        device = next(self.parameters()).device
        for x in ahead(source.load, torch.arange(len(source)).split(batch_size)):
            yield x.to(device)


def check_probabilities(probabilities: Tensor) -> None:
    """Raise NotFiniteError if probabilities are NaN."""
    if not bool(probabilities.isfinite().all()):
        raise NotFiniteError("the networks' outputs are not finite: their training diverged; use another checkpoint")


def load(path: str | Path, device: str | None = None, trust: str | Sequence[str] = ()) -> Classifier:
    """Return the classifier of a trained run; the training data are not needed.

    Args:
        path: A checkpoint, a .safetensors export, or a run folder (its best checkpoint, or the last if it has no best).
        device: auto, cpu (the default), cuda, cuda:N or mps.
        trust: The user's modules that the file may name; the environment variable LNTL_TRUST can name more. Code
            that is not trusted is never run.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        UserError: If the file cannot be read, is damaged, or names code that is not trusted.
    """
    path = RunFolder.resolve(Path(path), exports=True)
    description, weights = _read_export(path) if path.suffix == EXPORT_SUFFIX else _read_checkpoint(path, trust)
    return build_classifier(description, weights, path, device or "cpu", trust)


def build_classifier(
    description: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    path: Path,
    device: str = "cpu",
    trust: str | Sequence[str] = (),
) -> Classifier:
    """Return the classifier with this description and these weights of f and g; `path` is their file."""
    with check_fit(path):
        networks = build_networks(description["model"], description["spec"], str(path), trust)
        keys = networks.load_state_dict(weights, strict=False)
        if misfits := [*keys.unexpected_keys, *(k for k in keys.missing_keys if not k.startswith("h."))]:
            raise KeyError(misfits[0])
    transform = _transform(description, path)
    networks.to(find_device(device)).to(memory_format=torch.channels_last)
    return Classifier(networks.f, networks.g, transform, description)


def _transform(description: Mapping[str, Any], path: Path) -> EvalTransform:
    """Return the transform of a description; raises UserError if it or the class names do not fit the networks."""
    settings, spec = description["transform"], description["spec"]
    zeros = torch.zeros(1, *spec["input_shape"])
    try:
        if [*description["class_names"]] != [*spec["class_names"]] or len(spec["class_names"]) != spec["num_classes"]:
            raise ValueError(f"{len(description['class_names'])} names of {spec['num_classes']} classes")
        transform = restore(settings, workers=os.cpu_count() or 1)
        if missing_keys := transform.settings().keys() - settings.keys():
            raise KeyError(*missing_keys)
        if transform(zeros).shape != zeros.shape:
            raise ValueError("mean and std do not fit the images")
    except (LookupError, TypeError, ValueError, RuntimeError, UserError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: its description of the data is damaged ({reason}); export or train again") from error
    return transform


def _read_checkpoint(path: Path, trust: str | Sequence[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return description and weights in a checkpoint."""
    saved = checkpoint.load(path)
    check_trusted(saved.config, str(path), trust)
    if saved.data is None:
        raise UserError(
            f"{path}: written by an old version of lntl, whose checkpoints do not describe their data, so it cannot be "
            f"used without the data; train again, or use `lntl eval {path}`, which reads the data"
        )
    sections = {name: saved.config.get(name) if isinstance(saved.config, dict) else None for name in ("data", "model")}
    if damaged := [name for name, section in sections.items() if not isinstance(section, dict)]:
        raise UserError(
            f"{path}: is damaged (config.{damaged[0]}); use another checkpoint from {path.parent}, or train again"
        )
    spec_and_transform = saved.data.model_dump(include={"spec", "transform"})
    description = {**sections, "class_names": list(saved.data.spec.class_names), **spec_and_transform}
    try:
        json.dumps(description)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: is damaged ({error}); use another checkpoint from {path.parent}, or train again"
        ) from error
    return description, evaluated_weights(saved)


def _read_export(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return description and weights in a .safetensors export."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error})") from error
    description = {name: _parse_json(metadata.get(name, "")) for name in DESCRIPTION}
    if missing := [name for name, kind in DESCRIPTION.items() if not isinstance(description[name], kind)]:
        raise UserError(
            f"{path}: not an export of lntl, because its metadata lack {', '.join(missing)}; write one with "
            "lntl export RUN --format safetensors"
        )
    if metadata.pop(DIGEST_KEY, None) != digest(weights, metadata):
        raise UserError(
            f"{path}: its checksum differs, so it is damaged or was changed; write it again with "
            "lntl export RUN --format safetensors"
        )
    if nonfinite := [name for name, value in weights.items() if not bool(value.isfinite().all())]:
        raise NotFiniteError(f"{path}: the weight {nonfinite[0]} is not finite: training diverged; export another run")
    return description, weights


def digest(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return a digest of all weights and metadata, because .safetensors files have no checksum."""
    sha = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(weights):
        value = weights[name].contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _parse_json(text: str) -> Any:
    """Return the value of a JSON text, None if it is not valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
