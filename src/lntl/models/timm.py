"""Any classifier of the library timm (pip install timm), split at one of its layers."""

from types import ModuleType

from torch import nn

from lntl.errors import UserError
from lntl.models.backbone import Backbone, BackboneSettings
from lntl.plugins import did_you_mean

__all__ = ["Timm"]


class Timm(Backbone):
    """f: (N, C, H, W) -> z, the output of the layer `split`; g: z -> (N, classes); h: z -> (N, bins, *bias_shape)."""

    plugin = "timm"

    class Config(BackboneSettings):
        """Settings of `model`."""

    @staticmethod
    def architectures() -> list[str]:
        """Return the names of timm's classifiers."""
        return list(import_timm().list_models())

    @classmethod
    def create(cls, arch: str, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """Return a classifier for the images' size and channels."""
        if not import_timm().is_model(arch):
            raise UserError(f"model.arch: timm has no classifier {arch!r}{did_you_mean(arch, cls.architectures())}")
        try:
            arguments = size_arguments(arch, input_shape)
            network: nn.Module = import_timm().create_model(arch, num_classes=outputs, **arguments)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # timm does not accept the size
            size = " x ".join(map(str, input_shape))
            raise UserError(f"model.arch: {arch} cannot take images of {size}: {error}") from error
        return network


def size_arguments(arch: str, input_shape: tuple[int, ...]) -> dict[str, object]:
    """Return the arguments of timm.create_model for images (C, H, W)."""
    pretrained = import_timm().get_pretrained_cfg(arch)
    size = {"img_size": input_shape[1:]} if pretrained is not None and pretrained.fixed_input_size else {}
    return {"in_chans": input_shape[0], **size}


def import_timm() -> ModuleType:
    """Return timm; raises UserError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"model.name: timm is not installed ({error}); pip install timm, or use torchvision") from error
    return timm
