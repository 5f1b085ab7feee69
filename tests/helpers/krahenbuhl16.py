"""Stores of three colours and small networks, for tests of fine-tuning with fresh fc6-fc8."""

from pathlib import Path

import numpy as np

from eval.krahenbuhl16 import Krahenbuhl16, Krahenbuhl16Config, Train
from eval.networks.fc678 import Classifier
from helpers.subjects import subject
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.whole import WholeIndex, WholeStore
from ssl_bench.data.string_array import StringArray
from ssl_bench.evaluation.harness import Outcome
from ssl_bench.runtime import Runtime

COLOURS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230]])
PLAIN = Normalization(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
QUICK = Krahenbuhl16Config(steps=6, batch_size=8, head=32, crops=2)


def stored(folder: Path, pixels: list[np.ndarray], annotations: np.ndarray) -> WholeStore:
    folder.mkdir()
    (folder / "images.bin").write_bytes(b"".join(image.tobytes() for image in pixels))
    names = StringArray.of(str(i) for i in range(len(pixels)))
    sizes = [image.shape[:2] for image in pixels]
    index = WholeIndex(
        task="classification", classes=("red", "green", "blue"), names=names,
        labels=annotations.tolist(), digests=names, masks=None, objects=None, originals=sizes,
        sizes=sizes, scales=[1] * len(names), skipped=[], mean=PLAIN.mean, std=PLAIN.std, digest="",
    )  # fmt: skip
    return WholeStore(folder, index)


def relabelled(images: WholeStore, annotations: np.ndarray) -> WholeStore:
    labels = annotations.tolist()
    return WholeStore(images.folder, images.index.model_copy(update={"labels": labels}))


def image(images: WholeStore, i: int) -> np.ndarray:
    """uint8 (h, w, 3), without padding."""
    return images.images(np.array([i]))[0].permute(1, 2, 0).numpy()


def tuned(config, train, test, folder: Path, tested=None) -> Outcome:
    folder.mkdir(exist_ok=True)
    harness, stores = Krahenbuhl16(config), {"train": train, "test": test}
    harness.check(stores)
    tested, runtime = tested or subject(PLAIN, "pool5"), Runtime(workers=0)
    return dict(harness.evaluate(tested, stores, runtime, {"pool5": folder}))["pool5"]


def network(train: Train = "all", classes=3, seed=0, head=16) -> Classifier:
    made = Classifier(subject(PLAIN).encoder, "pool5", 64, head, classes, seed)
    made.freeze(train)
    return made
