"""What is known of an encoder before it is built; it needs no torch, so that tables do not."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from ssl_bench.data.normalization import HALF, Normalization
from ssl_bench.errors import plain

LIBRARIES = ("timm", "torchvision")  # whose models are asked for as LIBRARY:NAME
DEFAULT_ARCH = "alexnet"
Init = Literal["gaussian", "fan-in", "dcgan", "own"]
Norm = Literal["own", "batch"]
Stem = Literal["own", "small", "sobel"]
RESNET50 = "torchvision:resnet50"  # what methods are published with since 2018


@dataclass(frozen=True)
class Trunk:
    """The images that a trunk of ours takes.

    `normalization` is what it is trained with whatever the images are; None: that of the images.
    """

    least_size: int  # px; the last map is then one cell
    usual_size: int
    normalization: Normalization | None = None


TRUNKS = {
    "alexnet": Trunk(64, 227),
    # Its decoder's pixels end in a tanh, in [−1, 1], so those that it sees lie there too.
    "dcgan": Trunk(128, 128, HALF),
}


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
    `norm` batch gives alexnet batch normalisation in place of its own LRN; `stem` small lets a
    ResNet begin at full resolution (stem.py), `stem` sobel alexnet with edges (sobel.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    arch: str
    image_size: ImageSize = Field(le=8192)
    width: float = Field(default=1.0, gt=0, le=4)
    bottleneck: int | None = Field(default=None, ge=1)
    # Left out at its default: records and files of the time before it have the same bytes.
    norm: Norm = Field(default="own", exclude_if=lambda norm: norm == "own")
    stem: Stem = Field(default="own", exclude_if=lambda stem: stem == "own")
    normalization: Normalization

    def plain(self) -> dict[str, Any]:
        """For records: what does not concern this encoder is left out."""
        return self.model_dump(mode="json", exclude_none=True)


def training_normalization(arch: str, images: Normalization) -> Normalization:
    """What `arch` is trained with on images that have a normalisation of their own."""
    return (arch in TRUNKS and TRUNKS[arch].normalization) or images


def default_init(arch: str) -> Init:
    """Starting weights where none are asked for: nobody draws a ViT from N(0, 0.01²)."""
    return "gaussian" if arch in TRUNKS else "own"
