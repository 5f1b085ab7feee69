"""Numbers of predictions, and what tables print of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that tables show, as its name stands in `Harness.score`.

    `digits` stand behind the point; of a `lower` one less is better; `interval` says what its 95 %
    interval is over and how it is made.
    """

    name: str
    unit: str = "%"
    digits: int = 1
    lower: bool = False
    interval: str = "over the test images, bootstrap"


TOP1 = Metric("top1", interval="over the test images, Wilson's")
MEAN_PER_CLASS = Metric("mean_per_class")
