"""Encoders by name: what builds one, and what its own published weights expect.

`alexnet` and `dcgan` are ours, `timm:NAME` and `torchvision:NAME` bring any model of these
libraries.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ssl_bench.data.normalization import IMAGENET, Normalization
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.dcgan import DCGAN
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.encoders.from_timm import TimmEncoder, check_timm_name
from ssl_bench.encoders.from_torchvision import TorchvisionEncoder, check_torchvision_name
from ssl_bench.encoders.spec import (
    LIBRARIES,
    TRUNKS,
    EncoderSpec,
    least_size,
    training_normalization,
)
from ssl_bench.errors import UsageError, unknown

BUILDERS: dict[str, Callable[[EncoderSpec], Encoder]] = {  # of the TRUNKS
    "alexnet": lambda spec: AlexNet(spec.width, spec.norm == "batch", spec.stem == "sobel"),
    "dcgan": lambda spec: DCGAN(spec.width, spec.bottleneck),
}
CLASSES: dict[str, type[Encoder]] = {
    "alexnet": AlexNet, "dcgan": DCGAN, "timm": TimmEncoder, "torchvision": TorchvisionEncoder,
}  # fmt: skip


def version_of(arch: str) -> int:
    """The `version` of the class that `arch` is an encoder of; 1 for an unknown one."""
    found = CLASSES.get(arch.partition(":")[0])
    return found.version if found else 1


def weights_of(encoder: Encoder, layers: str | Sequence[str], size: int) -> list[nn.Parameter]:
    """The weights that the maps of a layer, or of any of several, depend on, at `size` px."""
    asked = [layers] if isinstance(layers, str) else layers
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    with evaluating(encoder):
        maps = encoder(torch.zeros(1, 3, size, size), asked).values()
    # None, not zeros, is the gradient of a weight that no map depends on.
    total = torch.stack([each.sum() for each in maps]).sum()
    found = torch.autograd.grad(total, weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, found, strict=True) if gradient is not None]


def learn_up_to(encoder: Encoder, layer: str | Sequence[str], size: int) -> None:
    """From now on no weight behind `layer` asks for a gradient: several devices wait for those.

    Of several layers, none that is behind all of them, as a library's classifier.
    """
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
    if spec.stem == "sobel" and spec.arch != "alexnet":
        raise UsageError(f"--stem sobel is for alexnet, not for {spec.arch}")
    if spec.stem == "small" and spec.arch in TRUNKS:
        raise UsageError(
            f"--stem small is for ResNets of timm and torchvision, not for {spec.arch}"
        )
    least = least_size(spec.arch)
    if spec.image_size < least:
        raise UsageError(f"{spec.arch} takes images of at least {least} px, not {spec.image_size}")
    if spec.arch in TRUNKS:
        return
    checks = {"timm": check_timm_name, "torchvision": check_torchvision_name}
    if library not in LIBRARIES or not name:
        ours = [f"{one}:{spec.arch}" for one, check in checks.items() if _knows(check, spec.arch)]
        raise unknown("architecture", spec.arch, [*TRUNKS, "timm:NAME", "torchvision:NAME", *ours])
    if spec.width != 1:
        raise UsageError(f"--width scales {' and '.join(TRUNKS)}, not {spec.arch}")
    checks[library](name)


def _knows(check: Callable[[str], None], name: str) -> bool:
    """Whether a library has a network of that name."""
    try:
        check(name)
    except UsageError:
        return False
    return True


def build_encoder(spec: EncoderSpec, pretrained: bool = False) -> Encoder:
    """The encoder that `spec` names, on the CPU. Raises UsageError for an unknown one."""
    check_spec(spec)
    if spec.arch in TRUNKS:
        return BUILDERS[spec.arch](spec)
    library, _, name = spec.arch.partition(":")
    if library == "timm":
        return TimmEncoder(name, spec.image_size, pretrained, spec.stem)
    return TorchvisionEncoder(name, spec.image_size, pretrained, spec.stem)
