"""Suites: a TOML file that says which runs make a table; what is missing is done.

name = "quickstart"
data = "scenes"                     # evaluated on, and pretrained on unless the next line
pretrain_data = ["folder:A", "voc07"]  # or a run says otherwise: a set, or several as one
seeds = [0, 1, 2]                   # every run is made once per seed
controls = true                     # the default: shuffled labels (first seed), the random floor
welcome = true                      # what it showed, a page, a picture and the next commands

[encoder]                           # settings that every pretext shares
image_size = 96

[[pretrain]]
method = "context-encoder"
label = "context encoder, regions"  # what tables call the row; else the method and what differs
steps = 400                         # and any other setting of the method
keep-at = [50, 100, 200]            # and rows of the encoders on the way, of the same training

[[pretrain]]
method = "inpainting"               # another network: its own names of layers
arch = "dcgan"
layers = { knn = ["conv3", "bottleneck"], svm = ["conv5"] }  # or one list for all evaluations
evaluations = ["knn", "svm"]        # none named: all

[[external]]                        # an encoder from elsewhere, as --encoder takes it
encoder = "timm:resnet18"           # also weights = "FILE" and image_size = 128
layers = ["layer4"]

[[evaluate]]
evaluation = "linear-probe"         # or linear-probe.zhang16, svm, knn, low-shot, finetune …
layers = ["conv3", "pool5"]
headline = "pool5"                  # tested: at this layer, or (true) at all; see tables/family.py

[[evaluate]]
evaluation = "detect"
seeds = [0]                         # a costly one: fewer of the suite's seeds; [[pretrain]] too

[[contrast]]                        # tested in place of every row against its baselines
a = "context-encoder"               # a method, or a row as the table calls it
b = "random"
evaluation = "linear-probe"         # and layer = "pool5"; none named: the headlines
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from ssl_bench import catalogue
from ssl_bench.errors import UsageError

LABEL = r"^[^\x00-\x1f\x7f-\x9f]{1,80}$"  # of a row: nothing that steers a terminal


class _Row(BaseModel):
    """What an entry may say of how its encoder is measured."""

    layers: tuple[str, ...] | dict[str, tuple[str, ...]] = Field(
        default=(), description="in place of the evaluations' own: for all, or by evaluation"
    )
    evaluations: tuple[str, ...] = Field(default=(), description="those to run; none named: all")
    label: str | None = Field(default=None, pattern=LABEL, description="what tables call the row")

    def layers_of(self, evaluation: str) -> tuple[str, ...]:
        """At which layers the row wants to be measured; none: at the evaluation's."""
        own = self.layers
        return own.get(evaluation, ()) if isinstance(own, dict) else own

    @property
    def named(self) -> set[str]:
        """All evaluations that the entry names."""
        return {*self.evaluations, *(self.layers if isinstance(self.layers, dict) else ())}


Sets = str | Annotated[tuple[str, ...], Field(min_length=1)]  # one, or several as one


class PretrainEntry(_Row):
    """One pretext; settings that are not named here are the method's own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    method: str
    data: Sets | None = None
    seeds: tuple[int, ...] = Field(default=(), description="of the suite's; none named: all")
    keep_at: tuple[int, ...] = Field(
        default=(),
        validation_alias=AliasChoices("keep-at", "keep_at"),
        description="steps after which the encoder is kept and measured, too",
    )
    until: int | None = Field(
        default=None, description="the step behind which the training rests; the last row is its"
    )


class ExternalEntry(_Row):
    """An encoder that is not pretrained here; its random floor is the same network untrained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder: str
    weights: str | None = None
    image_size: int | None = None


class EvaluateEntry(BaseModel):
    """One evaluation of every pretext's encoder, at these layers."""

    model_config = ConfigDict(frozen=True, extra="allow")
    evaluation: str
    layers: tuple[str, ...] = ()
    data: str | None = None
    seeds: tuple[int, ...] = Field(default=(), description="of the suite's; none named: all")
    headline: bool | str = Field(default=False, description="whether, or at which layer, it counts")


class ContrastEntry(BaseModel):
    """Two rows, or all rows of two methods, whose difference is tested."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    a: str
    b: str
    evaluation: str | None = None
    layer: str | None = None


class Suite(BaseModel):
    """What a suite file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str = ""
    data: str = "scenes"
    pretrain_data: Sets | None = Field(default=None, description="if other than `data`")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    encoder: dict[str, Any] = Field(default_factory=dict)
    controls: bool = True
    welcome: bool = Field(default=False, description="ends with findings, pictures, what is next")
    pretrain: tuple[PretrainEntry, ...] = ()
    external: tuple[ExternalEntry, ...] = ()
    evaluate: tuple[EvaluateEntry, ...] = Field(min_length=1)
    contrast: tuple[ContrastEntry, ...] = ()

    @model_validator(mode="after")
    def _something_to_measure(self) -> "Suite":
        if not self.pretrain and not self.external:
            raise ValueError("a suite needs [[pretrain]] or [[external]]")
        labels = [row.label for row in (*self.pretrain, *self.external) if row.label]
        for label in labels:
            if labels.count(label) > 1 or label in {row.method for row in self.pretrain}:
                raise ValueError(f"label '{label}' is not the row's alone")
        return self

    def images_of(self, entry: PretrainEntry) -> Sets:
        """What an entry is pretrained on, as `--data` takes it."""
        return entry.data or self.pretrain_data or self.data

    @property
    def methods(self) -> tuple[PretrainEntry, ...]:
        """The pretexts; with controls, before them the random floor of each network without one."""
        return (*self._floors(), *self.pretrain) if self.controls else self.pretrain

    def _floors(self) -> Iterator[PretrainEntry]:
        """Measured where a network's rows are, at their layers and with their seeds.

        A row's network is its own by `arch` and the like, or its recipe's: not only `encoder`.
        """
        floor = floor_method()
        named = [self._network(entry) for entry in self.pretrain if entry.method == floor]
        asked: dict[str, tuple[PretrainEntry, set[int]]] = {}
        for entry in self.pretrain:
            network = self._network(entry)
            if network in named:
                continue
            how = {"layers": entry.layers, "evaluations": entry.evaluations}
            own = PretrainEntry(method=floor, data=entry.data, **network, **how)
            like = own.model_dump_json(exclude={"data"})  # which do not change its weights
            _, seeds = asked.setdefault(like, (own, set()))
            seeds.update(entry.seeds or self.seeds)
        for own, seeds in asked.values():
            all_of_them = seeds == {*self.seeds}
            yield own if all_of_them else own.model_copy(update={"seeds": tuple(sorted(seeds))})

    def _network(self, entry: PretrainEntry) -> dict[str, Any]:
        """All that its starting weights follow from, but for the seed."""
        config = pretrain_config(self, entry, self.seeds[0])
        fields = catalogue.pretext(floor_method()).Config.model_fields.keys() - {"seed", "start"}
        return {name: getattr(config, name) for name in fields}

    @property
    def plan(self) -> list["Stage"]:
        """All that is to be done, the first seed's before the second's.

        Evaluations of fewer seeds are the costly ones, so they come after all others: a suite that
        is cut short has whole columns.
        """
        rows: list[tuple[int, PretrainEntry | ExternalEntry, int | None]] = [
            (s, e, step)
            for s in self.seeds
            for e in self.methods
            if s in (e.seeds or self.seeds)
            for step in _rows_of(self, e, s)
        ]
        rows += [(self.seeds[0], entry, None) for entry in self.external]
        stages = [
            Stage(seed, row, tuple(r for r in self.requests(row, seed) if self._fewer(r[0]) is end),
                  step)
            for end in (False, True)
            for seed, row, step in rows
        ]  # fmt: skip
        return [stage for stage in stages if stage.requests]

    def _fewer(self, entry: EvaluateEntry) -> bool:
        return bool(entry.seeds) and set(entry.seeds) != set(self.seeds)

    def requests(
        self, row: PretrainEntry | ExternalEntry, seed: int
    ) -> list[tuple[EvaluateEntry, tuple[str, ...]]]:
        """What is measured of a row with this seed, and at which of its layers."""
        return [
            (entry, _layers(row, entry))
            for entry in self.evaluate
            if _is_measured(row, entry) and seed in (entry.seeds or self.seeds)
        ]

    def layers(self, entry: EvaluateEntry) -> set[str]:
        """At which layers rows are measured by an entry; none: some at the evaluation's own."""
        rows = [r for r in (*self.methods, *self.external) if _is_measured(r, entry)]
        asked = [_layers(row, entry) for row in rows]
        return {layer for layers in asked for layer in layers} if all(asked) else set()


def _is_measured(row: PretrainEntry | ExternalEntry, entry: EvaluateEntry) -> bool:
    return entry.evaluation in (row.evaluations or (entry.evaluation,))


def _layers(row: PretrainEntry | ExternalEntry, entry: EvaluateEntry) -> tuple[str, ...]:
    foreign = isinstance(row, ExternalEntry)  # its layers have names of their own
    return row.layers_of(entry.evaluation) or (() if foreign else entry.layers)


@dataclass(frozen=True)
class Stage:
    """What is done in one go: some evaluations of one row with one seed, and at which layers.

    `kept` is the step of an encoder on the way; None: the one at the end.
    """

    seed: int
    row: PretrainEntry | ExternalEntry
    requests: tuple[tuple[EvaluateEntry, tuple[str, ...]], ...]
    kept: int | None = None

    @property
    def title(self) -> str:
        """For the person who waits."""
        row = self.row
        if isinstance(row, PretrainEntry):
            step = f" at step {self.kept:,}" if self.kept else ""
            name = f"{row.method}{step}, seed {self.seed}"
        else:
            name = f"{row.encoder} weights={row.weights}" if row.weights else row.encoder
        return f"{name}: {', '.join(entry.evaluation for entry, _ in self.requests)}"


def floor_method() -> str:
    """The pretext that trains nothing: what a row has above it is what its training did."""
    pretexts = catalogue.find_all("pretext")
    return next(name for name, pretext in pretexts.items() if pretext.baseline == 0)


def pretrain_config(suite: Suite, entry: PretrainEntry, seed: int) -> Any:
    """The validated settings of one pretext and seed."""
    config = catalogue.pretext(entry.method).Config
    return config(**{**suite.encoder, **(entry.model_extra or {}), "seed": seed})


def steps_on_the_way(suite: Suite, entry: PretrainEntry, seed: int) -> list[int]:
    """In order, those at which the encoder is kept; UsageError for one that is not reached."""
    from ssl_bench.training.keep import steps_to_keep  # imports torch, which tables do not need

    return steps_to_keep(pretrain_config(suite, entry, seed), entry.keep_at, entry.until)


def _rows_of(suite: Suite, entry: PretrainEntry, seed: int) -> list[int | None]:
    """The steps that are rows; None: the finished run."""
    steps = steps_on_the_way(suite, entry, seed)
    return [*steps] if entry.until in steps else [*steps, None]


def evaluation_config(entry: EvaluateEntry, seed: int) -> Any:
    """The validated settings of one evaluation and seed."""
    if "seed" in (entry.model_extra or {}):
        raise UsageError(f"{entry.evaluation} has no seed of its own: the suite's seeds are")
    return catalogue.evaluation(entry.evaluation).Config(**(entry.model_extra or {}), seed=seed)
