"""`scenes`: the embedded procedural set as a dataset; nothing is downloaded.

`scenes:train=500,test=200,seed=1` asks for other sizes or another world than the defaults.
"""

import hashlib

import numpy as np

from ssl_bench.data import scenes
from ssl_bench.data.dataset import Dataset, Split, SplitName
from ssl_bench.errors import UsageError, unknown

DEFAULTS = {"train": 2000, "test": 2000, "seed": 0}


class ScenesSplit(Split):
    """The first `count` scenes of one split."""

    def __init__(self, seed: int, name: SplitName, count: int) -> None:
        self.seed, self.split = seed, name
        self.names = [f"scenes/{seed}/{name}/{i}" for i in range(count)]
        self.classes = scenes.CLASSES
        self.labels = np.array(
            [scenes.label_of(seed, name, i) for i in range(count)], dtype=np.int64
        )
        text = f"scenes {scenes.VERSION} {seed} {name} {count}"
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def load(self, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        """Draw one scene at `size`; see Split.load. A scene has no size of its own."""
        identity = f"{scenes.VERSION} {self.names[index]}".encode()
        pixels = scenes.render(self.seed, self.split, index, size).image
        return pixels, hashlib.sha256(identity).hexdigest()


class ScenesDataset(Dataset):
    """Procedural scenes of ten object classes."""

    def __init__(self, argument: str) -> None:
        self.sizes = dict(DEFAULTS)
        for item in filter(None, argument.split(",")):
            key, _, value = item.partition("=")
            if key not in DEFAULTS:
                raise unknown("option of scenes", key, DEFAULTS)
            if not value.isdigit() or (key != "seed" and value == "0"):
                raise UsageError(f"scenes:{key}= takes a whole number, not '{value}'")
            self.sizes[key] = int(value)
        other = [f"{k}={v}" for k, v in self.sizes.items() if v != DEFAULTS[k]]
        self.name = ":".join(["scenes", *filter(None, [",".join(other)])])

    def split(self, name: SplitName) -> Split:
        """`train` or `test`; the two never share a scene."""
        return ScenesSplit(self.sizes["seed"], name, self.sizes[name])
