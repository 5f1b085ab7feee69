"""What may look at an encoder while it is trained, and when.

Probes stand above trainings (evaluation/online.py): a training is handed one, and knows no more of
it than this. It changes no weight and draws no number of the training's, so it is in no key.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from ssl_bench.data.store.concat import Squares
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.training.batches import Batches


class Probing(Protocol):
    """A probe that is asked after every so many epochs, and at the end."""

    @property
    def every(self) -> int:
        """Epochs from one look to the next."""
        ...

    def check(self, store: Squares) -> None:
        """UsageError for images that it cannot measure on; called before the training."""
        ...

    def measure(self, encoder: Encoder, spec: EncoderSpec, store: Squares) -> Mapping[str, float]:
        """Numbers for the log, by name; leaves encoder and store as they are."""
        ...


class Look(NamedTuple):
    """What the loop is told of it: epochs from one to the next, and what to call."""

    every: int
    measure: Callable[[], Mapping[str, float]]

    def is_due(self, steps: int, batches: Batches) -> bool:
        """Whether the last of so many steps ended an epoch to look after."""
        epochs, before = (batches.passed(done) // self.every for done in (steps, steps - 1))
        return epochs > before
