"""Probes of frozen features: the pass against a bare forward, their solvers, memory, and growth.

Everything is a ratio of times taken in turn within one run on the same machine, so that a busy or
slow machine does not make the figure. Images are the embedded scenes; the encoder is AlexNet with
random weights, whose speed is that of trained ones.

    bench perf probes
    bench perf probes --images 2000 --image-size 96 --width 0.5     # a quick look
    bench perf probes --growth-images 1000,10000,100000             # what grows, further
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field

from ssl_bench import catalogue
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.errors import counted
from ssl_bench.evaluation.features import BATCH, Features, extract, feature_bytes
from ssl_bench.evaluation.harness import Probe
from ssl_bench.runtime import Runtime
from ssl_bench.training.augment import center_crop
from ssl_bench.training.pretext import Config

TEST = 1000  # images that the probes predict
PARTS = 4  # the bare forward and the pass take turns
MEMORY_MB = 32  # of features, in the measurement of memory
SMALL = {"image_size": 64, "width": 0.25, "dimensions": 1000}  # what memory is measured with
LAYERS = (1, 3, 6)  # that the growth of the pass is measured with


class PerfProbesConfig(Config):
    """What is measured."""

    images: int = Field(default=10_000, ge=1000, description="images of the pass")
    image_size: int = Field(default=128, ge=64, description="side of the network's input, px")
    width: float = Field(default=1.0, gt=0, le=4, description="factor on alexnet's channel counts")
    dimensions: int = Field(default=9600, ge=1, description="most numbers a layer is pooled to")
    solver_images: int = Field(
        default=2000, ge=1000, description="images that the probes' solvers are timed on"
    )
    memory_images: int = Field(
        default=2000, ge=1000, description="images when memory is measured, then ten times that"
    )
    growth_images: tuple[int, ...] = Field(
        default=(1000, 10_000), min_length=1, description="images that the pass's growth is seen on"
    )


class PerfProbes:
    """Four measurements: the pass, the solvers, the memory, the growth of the pass."""

    Config = PerfProbesConfig

    def __init__(self, config: PerfProbesConfig) -> None:
        self.config = config

    def lines(self) -> Iterator[str]:
        """The report, line by line as it is known."""
        config = self.config
        encoder, spec = alexnet(config.image_size, config.width)
        train, test = scenes(config.images, config.image_size)
        yield f"{config.images} images of {config.image_size} px, {torch.get_num_threads()} threads"
        yield from self._pass(encoder, spec, train, test)
        yield ""
        yield from self._memory()
        yield ""
        yield from self._growth()

    def _pass(
        self, encoder: Encoder, spec: EncoderSpec, train: ImageStore, test: ImageStore
    ) -> Iterator[str]:
        """The pass, which all probes share, against the bare forward; then each one's solver."""
        wanted = {layer: [self.config.dimensions] for layer in encoder.layers}
        on_disk = feature_bytes(encoder, spec, len(train), wanted) > Runtime().feature_memory()
        work = partial(extract, encoder, spec, wanted=wanted, title="pass", on_disk=on_disk)
        bare = passed = 0.0
        for part in _parts(train):
            bare += timed(partial(_forward, encoder, spec, part))
            passed += timed(partial(work, store=part))
        place = "on disk" if on_disk else "in memory"
        yield f"bare forward, six layers         {bare:8.1f} s"
        yield f"pass for all probes, {place:10}  {passed:8.1f} s"
        yield f"the pass is {passed / bare:.2f} × the bare forward; aim: ≤ 1.5 with the solvers"
        few = first_images(train, self.config.solver_images)
        seen = extract(encoder, spec, few, wanted, "train")
        unseen = extract(encoder, spec, test, wanted, "test")
        total = 0.0
        for probe in _probes(self.config.dimensions):
            seconds = 0.0
            for layer in encoder.layers:
                key = layer, self.config.dimensions
                splits = {"train": Features.of(seen[key], few),
                          "test": Features.of(unseen[key], test)}  # fmt: skip
                seconds += timed(partial(probe.probe, layer, splits))
            total += seconds
            yield f"{probe.protocol:22} solver, {len(few)} images {seconds:8.1f} s"
        ratio = (passed + total) / (bare + total)
        yield f"pass and these solvers: {ratio:.2f} × (bare forward + solvers)"

    def _memory(self) -> Iterator[str]:
        """Peak memory of two processes of their own, one with ten times the images."""
        few = self.config.memory_images
        peaks = [_peak_of(count) for count in (few, 10 * few)]
        for count, peak in zip((few, 10 * few), peaks, strict=True):
            yield f"peak memory, {count} images, {MEMORY_MB} MiB for features: {peak:.0f} MiB"
        yield f"growth {peaks[1] / peaks[0] - 1:+.1%}; aim: < 10 %"

    def _growth(self) -> Iterator[str]:
        """Of 1, 3 and 6 layers, each at rising numbers of images: time an image, and memory."""
        for layers in LAYERS:
            first = 0.0
            for images in self.config.growth_images:
                each, peak = _grown(images, layers)
                first = first or each
                yield (
                    f"pass, {counted(layers, 'layer')}, {images:6} images: {each:6.2f} ms of "
                    f"processor an image ({each / first - 1:+.1%}; aim: within 10 %), "
                    f"peak {peak:.0f} MiB"
                )


def alexnet(size: int, width: float) -> tuple[Encoder, EncoderSpec]:
    train, _ = scenes(400, size)
    spec = EncoderSpec(
        arch="alexnet", image_size=size, width=width, normalization=train.normalization
    )
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    return encoder, spec


def scenes(images: int, size: int) -> tuple[ImageStore, ImageStore]:
    data = catalogue.dataset(f"scenes:train={images},test={min(TEST, images)}")
    return open_store(data, "train", size), open_store(data, "test", size)


def first_images(store: ImageStore, count: int) -> ImageStore:
    """The first `count` images."""
    index = store.index
    few = {name: getattr(index, name)[:count] for name in ("names", "labels", "digests")}
    return ImageStore(store.folder, index.model_copy(update=few))


def _parts(store: ImageStore) -> Iterator[ImageStore]:
    for _ in range(PARTS):
        yield first_images(store, len(store) // PARTS)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def _forward(encoder: Encoder, spec: EncoderSpec, store: ImageStore) -> None:
    """The network alone: one batch, read and normalised beforehand, again and again."""
    encoder.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = center_crop(store.images(slice(0, BATCH)), spec.image_size)
    images = spec.normalization.apply(pixels)
    for start in range(0, len(store), BATCH):
        encoder(images[: len(store) - start], encoder.layers)


def _probes(dimensions: int) -> Sequence[Probe]:
    """Every probe of frozen features there is, once per protocol."""
    kinds = catalogue.find_all("eval", catalogue.names("eval")).values()
    settings: dict[str, Any] = {"dimensions": dimensions}
    return [kind(kind.Config(**settings)) for kind in kinds if issubclass(kind, Probe)]


# ---- memory


def _peak_of(images: int) -> float:
    """MiB, from a process of its own."""
    return _child("work", images)[0]


def _grown(images: int, layers: int) -> tuple[float, float]:
    """Milliseconds an image and MiB, from a process of its own."""
    each, peak = _child("pass", images, layers)
    return each, peak


def _child(work: str, *numbers: int) -> list[float]:
    """What a process of its own prints at last."""
    done = subprocess.run(
        [sys.executable, "-m", "eval.perf_probes", work, *map(str, numbers)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def _work(images: int) -> list[float]:
    """The pass and every probe on this many images; the peak in MiB."""
    encoder, spec = alexnet(SMALL["image_size"], SMALL["width"])
    train, test = scenes(images, SMALL["image_size"])
    dimensions = SMALL["dimensions"]
    wanted = {layer: [dimensions] for layer in encoder.layers}
    sizes = 4 * images * dimensions * len(wanted)
    on_disk = sizes > MEMORY_MB << 20
    seen = extract(encoder, spec, train, wanted, on_disk=on_disk)
    unseen = extract(encoder, spec, test, wanted, on_disk=on_disk)
    for probe in _probes(dimensions):
        for layer in encoder.layers:
            splits = {
                name: Features.of(rows[layer, dimensions], store)
                for name, rows, store in (("train", seen, train), ("test", unseen, test))
            }
            probe.probe(layer, splits)
    return [_peak()]


def _pass_alone(images: int, layers: int) -> list[float]:
    """Milliseconds of processor an image for the pass over some layers, and the peak in MiB.

    Not of the wall's clock: other processes take turns with this one.
    """
    encoder, spec = alexnet(SMALL["image_size"], SMALL["width"])
    train, _ = scenes(images, SMALL["image_size"])
    wanted = {layer: [SMALL["dimensions"]] for layer in encoder.layers[:layers]}
    on_disk = feature_bytes(encoder, spec, images, wanted) > MEMORY_MB << 20
    extract(encoder, spec, first_images(train, BATCH), wanted)  # the first batch costs more
    begun = time.process_time()
    extract(encoder, spec, train, wanted, on_disk=on_disk)
    return [1000 * (time.process_time() - begun) / images, _peak()]


def _peak() -> float:
    """This process's largest resident size in MiB: VmHWM, which a new program starts anew."""
    with open(f"/proc/{os.getpid()}/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    measure: dict[str, Callable[..., list[float]]] = {"work": _work, "pass": _pass_alone}
    print(*measure[sys.argv[1]](*map(int, sys.argv[2:])))
