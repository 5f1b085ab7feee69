"""Encoders by name: what builds one, and what its own published weights expect.

`alexnet` and `dcgan` are ours, `timm:NAME` and `torchvision:NAME` bring any model of these
libraries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError
from torch import nn

from ssl_bench.data.normalization import HALF, IMAGENET, Normalization
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.dcgan import DCGAN
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.encoders.from_timm import TimmEncoder, check_timm_name
from ssl_bench.encoders.from_torchvision import TorchvisionEncoder, check_torchvision_name
from ssl_bench.encoders.init import Init
from ssl_bench.errors import UsageError, plain, unknown

LIBRARIES = ("timm", "torchvision")  # whose models are asked for as LIBRARY:NAME
DEFAULT_ARCH = "alexnet"
Norm = Literal["own", "batch"]


def least_size(arch: str) -> int:
    """The smallest images, in px, that a network may be asked to take."""
    return TRUNKS[arch].least_size if arch in TRUNKS else 32


def _large_enough(size: int, info: ValidationInfo) -> int:
    arch = info.data.get("arch", DEFAULT_ARCH)
    if size < (least := least_size(arch)):
        said = {"arch": plain(arch), "least": least}
        raise PydanticCustomError("least", "{arch} takes images of at least {least} px", said)
    return size


# For models with an `arch` above it.
ImageSize = Annotated[int, AfterValidator(_large_enough)]


class EncoderSpec(BaseModel):
    """All that builds an encoder except its weights; it stands in the weights file's header.

    `bottleneck` is the number of channels of dcgan's last layer; None: 4000 times the width.
    `norm` batch gives alexnet batch normalisation in place of its own LRN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    arch: str
    image_size: ImageSize = Field(le=8192)
    width: float = Field(default=1.0, gt=0, le=4)
    bottleneck: int | None = Field(default=None, ge=1)
    # Left out at its default: records and files of the time before it have the same bytes.
    norm: Norm = Field(default="own", exclude_if=lambda norm: norm == "own")
    normalization: Normalization

    def plain(self) -> dict[str, Any]:
        """For records: what does not concern this encoder is left out."""
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True)
class Trunk:
    """What is known of a trunk of ours: what builds it, and the images it takes.

    `normalization` is what it is trained with whatever the images are; None: that of the images.
    """

    build: Callable[[EncoderSpec], Encoder]
    least_size: int  # px
    usual_size: int
    normalization: Normalization | None = None


TRUNKS = {
    "alexnet": Trunk(
        lambda spec: AlexNet(spec.width, spec.norm == "batch"), AlexNet.least_size, 227
    ),
    # Its decoder's pixels end in a tanh, in [−1, 1], so those that it sees lie there too.
    "dcgan": Trunk(lambda spec: DCGAN(spec.width, spec.bottleneck), DCGAN.least_size, 128, HALF),
}


CLASSES: dict[str, type[Encoder]] = {
    "alexnet": AlexNet, "dcgan": DCGAN, "timm": TimmEncoder, "torchvision": TorchvisionEncoder,
}  # fmt: skip


def version_of(arch: str) -> int:
    """The `version` of the class that `arch` is an encoder of; 1 for an unknown one."""
    found = CLASSES.get(arch.partition(":")[0])
    return found.version if found else 1


def training_normalization(arch: str, images: Normalization) -> Normalization:
    """What `arch` is trained with on images that have a normalisation of their own."""
    return (arch in TRUNKS and TRUNKS[arch].normalization) or images


def default_init(arch: str) -> Init:
    """Starting weights where none are asked for: nobody draws a ViT from N(0, 0.01²)."""
    return "gaussian" if arch in TRUNKS else "own"


def weights_of(encoder: Encoder, layer: str, size: int) -> list[nn.Parameter]:
    """The weights that a layer's map depends on, for images of `size` px."""
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    with evaluating(encoder):
        maps = encoder(torch.zeros(1, 3, size, size), [layer])[layer]
    # None, not zeros, is the gradient of a weight that the map does not depend on.
    found = torch.autograd.grad(maps.sum(), weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, found, strict=True) if gradient is not None]


def learn_up_to(encoder: Encoder, layer: str, size: int) -> None:
    """From now on no weight behind `layer` asks for a gradient: several devices wait for those."""
    wanted = {id(weight) for weight in weights_of(encoder, layer, size)}
    for weight in encoder.parameters():
        weight.requires_grad_(id(weight) in wanted)


def own_spec(arch: str) -> EncoderSpec:
    """Image size and normalisation that `arch`'s published weights were trained with."""
    library, _, name = arch.partition(":")
    size = TRUNKS[arch].usual_size if arch in TRUNKS else 224
    norm = training_normalization(arch, IMAGENET)
    check_spec(EncoderSpec(arch=arch, image_size=size, normalization=norm))
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        if config is not None:
            norm = Normalization.model_validate({"mean": config.mean, "std": config.std})
            size = config.input_size[-1]
    elif library == "torchvision":
        from torchvision.models import get_model_weights

        published = get_model_weights(name).DEFAULT.transforms()  # type: ignore[attr-defined]
        norm = Normalization.model_validate({"mean": published.mean, "std": published.std})
        size = published.crop_size[0]
    return EncoderSpec(arch=arch, image_size=size, normalization=norm)


def check_spec(spec: EncoderSpec) -> None:
    """Raise UsageError for an encoder that cannot be built; nothing is built."""
    library, _, name = spec.arch.partition(":")
    if spec.bottleneck and spec.arch != "dcgan":
        raise UsageError(f"--bottleneck is for dcgan, not for {spec.arch}")
    if spec.norm != "own" and spec.arch != "alexnet":
        raise UsageError(f"--norm is for alexnet, not for {spec.arch}")
    least = least_size(spec.arch)
    if spec.image_size < least:
        raise UsageError(f"{spec.arch} takes images of at least {least} px, not {spec.image_size}")
    if spec.arch in TRUNKS:
        return
    if library not in LIBRARIES or not name:
        raise unknown("architecture", spec.arch, [*TRUNKS, "timm:NAME", "torchvision:NAME"])
    if spec.width != 1:
        raise UsageError(f"--width scales {' and '.join(TRUNKS)}, not {spec.arch}")
    {"timm": check_timm_name, "torchvision": check_torchvision_name}[library](name)


def build_encoder(spec: EncoderSpec, pretrained: bool = False) -> Encoder:
    """The encoder that `spec` names, on the CPU. Raises UsageError for an unknown one."""
    check_spec(spec)
    if spec.arch in TRUNKS:
        return TRUNKS[spec.arch].build(spec)
    library, _, name = spec.arch.partition(":")
    if library == "timm":
        return TimmEncoder(name, spec.image_size, pretrained)
    return TorchvisionEncoder(name, spec.image_size, pretrained)
