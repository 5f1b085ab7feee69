"""The record: one finished run with all that made it, as its `record.json` holds it.

The models are the record's own fields: what a file lacks, or has in another type, is refused as it
is read, and nothing is converted, so that what is written again is what was read. A default stands
for what the records of an earlier version did not say. Unknown names are kept (`extra="allow"`): a
later version's identity has the key that its record says, and its details can be shown.
"""

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

from ssl_bench.files import key_of
from ssl_bench.records.provenance import Provenance

Kind = Literal["pretrain", "evaluation"]
Digits = Annotated[int, Field(ge=0, le=9)]
StepNumber = Annotated[int, Field(ge=1)]


class RecordPart(BaseModel):
    """A part of a record. Strict: `5` is no text, and a text is no number."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    def plain(self) -> dict[str, Any]:
        """What is set, and nothing else, as JSON has it: of an identity, what its key is of."""
        return self.model_dump(mode="json", exclude_unset=True)


class PretrainIdentity(RecordPart):
    """All that determines an encoder's weights.

    `config` are the settings of the pretext `method`, which may not be installed here; `version` is
    the pretext's, `data` the digest of the images, `network` the encoder's, set where it is not 1.
    `kept` is set of an encoder that was kept on the way: the step after which. `start` is the
    digest of the encoder that it starts from, set where that is of another run.
    """

    kind: Literal["pretrain"]
    method: str
    version: int
    config: dict[str, Any]
    data: str
    network: int = 1
    start: str | None = None
    kept: StepNumber | None = None

    @property
    def training(self) -> str:
        """Key of the run whose training made the weights: of a kept encoder, that of another."""
        return key_of({name: value for name, value in self.plain().items() if name != "kept"})


class Kept(RecordPart):
    """Where an encoder was kept on the way: the key of the run that trains, and the step."""

    run: str
    step: StepNumber


class KeptCourse(Kept):
    """What that training had cost until then: images with repetitions, seconds of all processes."""

    images_seen: int
    seconds: float


class SavedEncoder(RecordPart):
    """The encoder of a pretraining: `spec` is an EncoderSpec, `digest` that of its weights.

    `start` is the digest of the weights before training: the `random` row of a table.
    """

    spec: dict[str, Any]
    digest: str
    start: str


class PretrainedSet(RecordPart):
    """One of several sets that were pretrained on as one: its name, digest, number of images."""

    name: str
    digest: str
    images: int


class PretrainDetails(RecordPart):
    """What explains a pretraining.

    `parent` is the run, METHOD@KEY, whose encoder it starts from. `sets` are those that made the
    images together, in order: `identity.data` is of their digests.
    `training` (speed, waiting, devices) is of a pretext that the loop trained, `fit` whatever one
    that is fitted says of it.
    """

    skipped_images: list[str]
    data_notes: dict[str, list[str]] = {}  # by split: how a folder was read, what was enlarged
    images: int | None = None
    sets: list[PretrainedSet] = []  # where there are several
    parent: str | None = None
    training: dict[str, Any] | None = None
    fit: dict[str, Any] | None = None
    kept: KeptCourse | None = None  # of an encoder that was kept on the way
    encoder: SavedEncoder


class EncoderIdentity(RecordPart):
    """The encoder under evaluation: `weights` is their digest, `spec` an EncoderSpec.

    `run` is the key of a pretraining, or the reference of an encoder from elsewhere. `network` is
    the `version` of the encoder's class, set where it is not 1.
    """

    run: str
    weights: str
    spec: dict[str, Any]
    network: int = 1


class EvaluationIdentity(RecordPart):
    """All that determines an evaluation's numbers.

    `config` are the harness's settings. `layer` is the key of a harness's Point: a layer, or what
    the harness calls a point of its own. Without an encoder (a fill by the mean colour, say) there
    is the `image_size` instead. `control` says which one, if it is any.
    """

    kind: Literal["evaluation"]
    protocol: str
    config: dict[str, Any]
    layer: str
    encoder: EncoderIdentity | None
    data: dict[str, str]  # digests of the images, by split
    image_size: int | None = None
    control: str | None = None


class Control(RecordPart):
    """How a run with shuffled training labels stands to chance: `z` in standard deviations."""

    kind: str = ""
    chance: float
    spread: float
    z: float


class EvaluationDetails(RecordPart):
    """What explains an evaluation's numbers, and what tables take from it without asking."""

    protocol: str  # as printed: with the settings that deviate from it
    metric: str  # the headline
    shown: list[str] = []  # metrics that tables show; none: the headline
    column: str | None = None  # behind the protocol's name; None: the layer
    encoder: str | None = None  # as it was referred to; None without one
    weights: str | None = None  # which were taken of another project's file; None: no such file
    asked_layer: str | None = None  # the layer to ask for to have it, "" for none; None: the layer
    depth: int | None = None  # place of the layer among the encoder's; None where it is none
    units: dict[str, str] = {}  # of metrics that are not percent
    digits: dict[str, Digits] = {}  # behind the point, of metrics where it is not one
    lower: list[str] | None = None  # metrics of which less is better; None: not said
    interval: str = "over the test images, Wilson's"  # what the 95 % intervals are
    selection: dict[str, Any] = {}  # what was chosen, on which split, and all that lost
    tests: list[str] = ["test"]  # the splits that the predictions are of, in order
    test_images: int
    skipped_images: list[str]
    data_notes: dict[str, list[str]] = {}  # by split: how a folder was read, what was enlarged
    skipped_training_images: list[str] = []
    duplicates: list[str] = []  # test images that are training images too
    pretraining: dict[str, Any] | None  # settings of the encoder's pretext; None: from elsewhere
    pretext_version: int | None = None
    pretraining_data: str | None  # name and digest of the pretext's images
    pretraining_digest: str | None = None
    kept: Kept | None = None  # of an encoder that was kept on the way
    train_images: int | None = None
    control: Control | None = None


class _Record(BaseModel, extra="forbid", frozen=True):
    """One finished run. `key` is the digest of `identity`.

    identity    all that determines the result: configuration, versions, digests of data and weights
    method      the pretext that made the encoder, or the encoder's reference
    data        the dataset's printed name
    metrics     the numbers, in the units that their names say
    details     what explains them: selection split, losing points, speed, skipped images
    files       SHA-256 of each file beside the record
    """

    schema_version: Literal[1] = 1
    kind: Kind
    key: str
    identity: RecordPart
    method: str
    data: str
    metrics: dict[str, FiniteFloat]
    details: RecordPart
    files: dict[str, str]
    provenance: Provenance

    @property
    def text(self) -> str:
        """The content of record.json."""
        return self.model_dump_json(indent=2, exclude_unset=True) + "\n"


class PretrainRecord(_Record, frozen=True):
    """A finished pretraining."""

    kind: Literal["pretrain"]
    identity: PretrainIdentity
    details: PretrainDetails

    @property
    def reference(self) -> str:
        """What `--encoder` takes to have exactly this run: METHOD@KEY, METHOD@KEY:STEP."""
        step = f":{self.identity.kept}" if self.identity.kept else ""
        return f"{self.method}@{self.identity.training[:12]}{step}"

    @property
    def sets(self) -> list[tuple[str, list[str]]]:
        """The name of each set that it is made from, and the digest of its images."""
        several = [(part.name, [part.digest]) for part in self.details.sets]
        return several or [(self.data, [self.identity.data])]


class EvaluationRecord(_Record, frozen=True):
    """A finished evaluation of one encoder at one layer."""

    kind: Literal["evaluation"]
    identity: EvaluationIdentity
    details: EvaluationDetails

    @property
    def sets(self) -> list[tuple[str, list[str]]]:
        """The name of the set that it is made from, and the digests of its splits."""
        return [(self.data, [*self.identity.data.values()])]

    @property
    def column(self) -> str:
        """What stands behind the protocol's name in a table."""
        return self.identity.layer if self.details.column is None else self.details.column

    @property
    def asked_layer(self) -> str:
        """The layer to ask for to have this number; empty for a point that takes none."""
        asked = self.details.asked_layer
        return self.identity.layer if asked is None else asked

    def run(self, digits: int = 12) -> str:
        """The encoder's pretraining as references say it, KEY or KEY:STEP; empty for none here."""
        kept, encoder = self.details.kept, self.identity.encoder
        if kept:
            return f"{kept.run[:digits]}:{kept.step}"
        return encoder.run[:digits] if encoder and self.pretraining else ""

    @property
    def shown(self) -> list[str]:
        """The metrics that tables show, a column each."""
        return self.details.shown or [self.details.metric]

    @property
    def images(self) -> str:
        """Digests of the test images: numbers are paired where they are equal."""
        return " ".join(self.identity.data[name] for name in self.details.tests)

    @property
    def pretraining(self) -> dict[str, Any]:
        """Settings of the encoder's pretext; empty for an encoder from elsewhere."""
        return self.details.pretraining or {}

    def check(self) -> None:
        """ValueError if what tables and comparisons take from it is not there."""
        for name in {self.details.metric, *self.details.shown}:
            ends = [f"{name}{side}" in self.metrics for side in ("_low", "_high")]
            if name not in self.metrics or any(ends) != all(ends):
                raise ValueError(f"no {name}, or half of its interval")
        if not self.details.tests or set(self.details.tests) - self.identity.data.keys():
            raise ValueError("no digest of the test images")
        if self.identity.control is not None and self.details.control is None:
            raise ValueError("a control that says nothing of chance")
        if self.details.kept and not isinstance(self.pretraining.get("steps"), int):
            raise ValueError("an encoder that was kept on the way of no training")


Record = PretrainRecord | EvaluationRecord
_ANY = TypeAdapter[Record](Annotated[Record, Field(discriminator="kind")])


def parse_record(text: bytes) -> Record:
    """A record from the content of its file. ValueError for one that no command could use."""
    record = _ANY.validate_json(text)
    # A record may come from anybody: what steers a terminal is in none of ours.
    if any(unicodedata.category(c) == "Cc" for t in _texts(record.model_dump()) for c in t):
        raise ValueError("a text with control characters")
    if record.kind == "evaluation":
        record.check()
    return record


def _texts(value: Any) -> Iterator[str]:
    """All names and texts in a JSON value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
