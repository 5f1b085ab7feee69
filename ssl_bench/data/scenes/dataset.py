"""`scenes`: the embedded procedural set as a dataset; nothing is downloaded.

`scenes:train=500,test=200,seed=1` asks for other sizes or another world than the defaults.
"""

import hashlib
from functools import lru_cache

import numpy as np

from ssl_bench.data.dataset import Dataset, Objects, Split, SplitName, Task
from ssl_bench.data.scenes import render as scenes
from ssl_bench.errors import UsageError, unknown

DEFAULTS = {"train": 2000, "test": 2000, "seed": 0}
# Side of a whole scene in pixels, which has no size of its own. Who changes it raises whole.LAYOUT.
WHOLE = 256
# A whole scene, its boxes and its mask are asked for one after the other.
_rendered = lru_cache(maxsize=1)(scenes.render)


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
        return scenes.render(self.seed, self.split, index, size).image, self._digest(index)

    def whole(self, index: int) -> tuple[np.ndarray, str]:
        """Draw one scene at WHOLE px; see Split.whole."""
        return self._whole(index).image, self._digest(index)

    def objects(self, index: int) -> Objects:
        """Tight boxes of the visible pixels, the subject first; see Split.objects."""
        scene = self._whole(index)
        return Objects(scene.boxes, scene.classes, np.zeros(len(scene.classes), bool))

    def mask(self, index: int) -> np.ndarray:
        """Classes of the visible pixels, none of them void; see Split.mask."""
        return self._whole(index).mask

    def _whole(self, index: int) -> scenes.Scene:
        return _rendered(self.seed, self.split, index, WHOLE)

    def _digest(self, index: int) -> str:
        identity = f"{scenes.VERSION} {self.names[index]}".encode()
        return hashlib.sha256(identity).hexdigest()


class ScenesDataset(Dataset):
    """Procedural scenes of ten object classes, with boxes and masks."""

    tasks = ("classification", "detection", "segmentation")

    def __init__(self, argument: str) -> None:
        self.sizes = dict(DEFAULTS)
        for item in filter(None, argument.split(",")):
            key, _, value = item.partition("=")
            if key not in DEFAULTS:
                raise unknown("option of scenes", key, DEFAULTS)
            whole = value.isascii() and value.isdecimal() and len(value) < 10
            if not whole or (key != "seed" and int(value) == 0):
                raise UsageError(f"scenes:{key}= takes a whole number, not '{value}'")
            self.sizes[key] = int(value)
        other = [f"{k}={v}" for k, v in self.sizes.items() if v != DEFAULTS[k]]
        self.name = ":".join(["scenes", *filter(None, [",".join(other)])])

    def count(self, name: SplitName, task: Task) -> int:
        """As many as the specification says."""
        return self.sizes[name]

    def split(self, name: SplitName, task: Task = "classification") -> Split:
        """`train` or `test`, the same for every task; the two never share a scene."""
        return ScenesSplit(self.sizes["seed"], name, self.sizes[name])
