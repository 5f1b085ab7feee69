"""Settings that determine a number, of pretexts and of what trains; no torch is needed for them."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.spec import (
    DEFAULT_ARCH,
    TRUNKS,
    EncoderSpec,
    ImageSize,
    Init,
    Norm,
    Stem,
    default_init,
    training_normalization,
)
from ssl_bench.errors import unknown
from ssl_bench.runtime import Precision
from ssl_bench.training.schedule import Schedule

MaskKind = Literal["central", "random-block", "random-region"]  # see masks.py


class Config(BaseModel):
    """Settings that determine a number: frozen, typed, a phrase per field, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(Config):
    """What every pretext shares: the encoder and its starting weights."""

    arch: str = Field(
        default=DEFAULT_ARCH,
        description=f"encoder: {', '.join(TRUNKS)}, timm:NAME or torchvision:NAME",
    )
    image_size: ImageSize = Field(
        default=TRUNKS[DEFAULT_ARCH].usual_size,
        description="side of the network's input, px",
    )
    width: float = Field(
        default=1.0,
        gt=0,
        le=4,
        description=f"factor on the channel counts of {' and '.join(TRUNKS)}",
    )
    # Left out at its default: records of the time before it was there have the same key.
    norm: Norm = Field(
        default="own", exclude_if=lambda norm: norm == "own",
        description="normalisation in alexnet: its own, LRN, or batch behind each convolution",
    )  # fmt: skip
    stem: Stem = Field(
        default="own", exclude_if=lambda stem: stem == "own",
        description="the network's beginning: its own; small, of a ResNet: 3×3, stride 1, no "
        "max-pooling; sobel, of alexnet: edges in place of colours",
    )  # fmt: skip
    init: Init = Field(
        default_factory=lambda given: default_init(given["arch"]),  # of what stands above
        description="starting weights: N(0, 0.01²), scaled by fan-in, as for dcgan N(0, 0.02²), or "
        "own: what the constructor draws, the default of timm's and torchvision's networks",
    )
    start: str | None = Field(
        default=None, exclude_if=lambda run: run is None,
        description="METHOD or METHOD@KEY: the run whose encoder it starts from, not by --init",
    )  # fmt: skip
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="seed of weights, order, crops, masks and dropout"
    )

    def spec(self, normalization: Normalization) -> EncoderSpec:
        """The encoder that is asked for; `normalization` is that of the training images."""
        return EncoderSpec(
            arch=self.arch,
            image_size=self.image_size,
            width=self.width,
            norm=self.norm,
            stem=self.stem,
            normalization=training_normalization(self.arch, normalization),
        )


class TrainConfig(Config):
    """What every training shares: `train` runs by it."""

    steps: int = Field(ge=1, description="updates")
    batch_size: int = Field(ge=1, description="images per update over all devices")
    lr: float = Field(gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(
        default="constant",
        description="the learning rate's course: constant; cosine; step: a tenth after 2/7, 4/7 "
        "and 6/7 of the steps; halve: half after each eighth; drop: a tenth after 3/4",
    )
    # Left out at 0: records of the time before it was there have the same key.
    warmup: int = Field(
        default=0, ge=0, exclude_if=lambda steps: steps == 0,
        description="steps over which the learning rate rises from 0, before its course",
    )  # fmt: skip
    precision: Precision = Field(
        default="32", description="arithmetic; auto: bf16 on CUDA, else 32 bit"
    )

    @model_validator(mode="after")
    def _warm_before_the_end(self) -> Self:
        if self.warmup and self.warmup >= self.steps:
            raise ValueError(f"--warmup {self.warmup} is not below --steps {self.steps}")
        return self


class Recipe(NamedTuple):
    """Settings that a name stands for; raise the version when one of them changes."""

    version: int
    settings: Mapping[str, Any]


class PretextConfig(EncoderConfig, TrainConfig):
    """The settings of a trained pretext; a method adds its own by a subclass.

    `recipe` NAME takes those of `recipes` in place of the defaults, and is kept as NAME@VERSION
    beside all that it came to: records of another version are still read.
    """

    recipes: ClassVar[Mapping[str, Recipe]] = {}
    recipe: str | None = Field(
        default=None, exclude_if=lambda name: name is None,
        description="named settings in place of the defaults, such as small: see the method's page",
    )  # fmt: skip
    steps: int = Field(default=100_000, ge=1, description="updates")
    batch_size: int = Field(default=128, ge=1, description="images per update over all devices")
    lr: float = Field(default=1e-4, gt=0, le=1e30, description="learning rate at the start")
    precision: Precision = Field(
        default="auto", description="arithmetic; auto: bf16 on CUDA, else 32 bit"
    )

    @classmethod
    def named(cls, recipe: str) -> Recipe | None:
        """What NAME, or NAME@VERSION if that is its version now, stands for."""
        name, _, version = recipe.partition("@")
        found = cls.recipes.get(name)
        return found if found and version in ("", str(found.version)) else None

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """What is given stands against the recipe, and the recipe against the defaults."""
        if not isinstance(given, dict) or not isinstance(given.get("recipe"), str):
            return given
        asked = given["recipe"]
        if found := cls.named(asked):
            mark = f"{asked.partition('@')[0]}@{found.version}"
            return {**found.settings, **given, "recipe": mark}
        needed = {name for name, field in cls.model_fields.items() if not field.exclude_if}
        # A record holds all settings, so one of another version is read as it is.
        if "@" in asked and needed <= given.keys():
            return given
        names = [f"{name}@{found.version}" for name, found in cls.recipes.items()]
        raise ValueError(str(unknown("recipe", asked, names)))

    @model_serializer(mode="wrap")
    def _complete(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a recipe names is never left out: a default may have been asked for against it."""
        found, recipe = dump(self), self.named(self.recipe or "")
        for name in recipe.settings if recipe else ():
            found.setdefault(name, getattr(self, name))
        return found
