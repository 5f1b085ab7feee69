"""What trains on images against its bare network: a step of each, and a pass over test images.

    python tests/perf/trained.py                              # embedded scenes, a few minutes
    python tests/perf/trained.py voc:VOCdevkit/VOC2007 5      # other images, 5 repetitions
    python tests/perf/trained.py scenes:train=8,test=4 1 0.1  # a quick look, of width 0.1

A step is all that `train_step` does with a batch in memory; the bare network is its forward and
backward pass alone, on tensors that are ready, without losses and updates. Both take turns, so that
a busy or slow machine does not make the ratio.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.detection import FastRCNN
from eval.finetuning import FineTuned
from eval.krahenbuhl16 import Krahenbuhl16
from eval.linear_head import LinearHead
from eval.networks.learner import Learner
from eval.perf_probes import timed
from eval.segmentation import FCN32s
from pretext.context_encoder import reconstruct
from pretext.inpainting import SIZE, Inpainting, InpaintingConfig
from ssl_bench import catalogue
from ssl_bench.counter import Randomness, generator
from ssl_bench.data.normalization import HALF
from ssl_bench.data.store.squares import stored_size
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.evaluation.harness import Subject
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import PretextConfig, Step

Work = Callable[[], Any]
Parts = Sequence[nn.Module]
Calls = list[tuple[nn.Module, tuple[Any, ...]]]
# By class: layer, images per update (fewer than the protocol's where these take seconds), and the
# parts of the network that follow the encoder.
EVALUATIONS: dict[type[FineTuned], tuple[str, int, tuple[str, ...]]] = {
    Krahenbuhl16: ("pool5", 16, ("fc67", "fc8")),
    LinearHead: ("pool5", 64, ("head",)),
    FastRCNN: ("conv5", 2, ("heads.box_head", "heads.box_predictor")),
    FCN32s: ("pool5", 2, ("fc67", "score")),
}
INPAINTING = 32  # images per update
BY_RECIPE = 16
TOY: dict[str, Any] = {"arch": "timm:test_efficientnet", "projector": (32, 16), "hidden": 16}
TOYS: dict[str, dict[str, Any]] = {
    "swav": {"prototypes": 24},
    "dino": {"outputs": 24},
    "lejepa": {"slices": 16},
    "bigan": {"latent": 8, "channels": 4},
    "mae": {"arch": "timm:test_vit", "decoder_depth": 1, "decoder_width": 32},
    "ibot": {"arch": "timm:test_vit", "outputs": 24},
    "i-jepa": {"arch": "timm:test_vit", "predictor_depth": 1, "predictor_width": 32},
}
SCENES = "scenes:train=72,test=8"


@dataclass
class Pair:
    """What is done with so many images, and the least that there is to do with them."""

    name: str
    images: int
    whole: Work
    bare: Work

    def line(self, repetitions: int) -> str:
        self.whole()
        self.bare()
        pairs = [(timed(self.whole), timed(self.bare)) for _ in range(repetitions)]
        speeds = (self.images / median(times) for times in zip(*pairs, strict=True))
        ratio = median(whole / bare for whole, bare in pairs)
        whole, bare = (f"{speed:.1f} images/s" for speed in speeds)
        return f"{self.name:45} {whole:>16}, bare {bare:>16}: {ratio:5.2f} × its time"


def lines(data: str = SCENES, repetitions: int = 5, width: float = 1.0) -> Iterator[str]:
    """The report, line by line as it is known."""
    yield f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {data}"
    for pair in (*reconstructions(width), inpainting(width), *by_recipe(width)):
        yield pair.line(repetitions)
    for kind in EVALUATIONS:
        for pair in evaluated(kind, data, width):
            yield pair.line(repetitions)


def _processor() -> str:
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def step_of(count: int, indices: Tensor | None = None, **batch: Tensor) -> Step:
    """The first step, of this many images: the first of a store unless `indices` says which."""
    positions = torch.arange(count)
    chosen = positions if indices is None else indices
    return Step(0, chosen, Randomness(0, 0, positions), lambda loss: loss.backward(), batch=batch)


def channels_last(module: nn.Module) -> Any:
    """As the loop places what it trains."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# ---- the pretexts
def reconstructions(width: float) -> Iterator[Pair]:
    """The context encoder and the autoencoder, on noise, at three sizes.

    Beside them the same network on images that are ready, its loss and its update.
    """
    for size, share, count in ((96, 0.5, 64), (128, 1.0, 32), (227, 1.0, 16)):
        stored = stored_size(size)
        images = torch.randint(256, (count, stored, stored, 3), generator=generator(0)).byte()
        for method in ("context-encoder", "autoencoder"):
            config = PretextConfig(image_size=size, width=share * width, init="fan-in")
            kind: Any = catalogue.pretext(method)
            config = kind.Config(**config.model_dump())
            task: Any = channels_last(build_pretext(method, config, HALF)[0].train())
            task.optimizers()
            name = f"{method}@{kind.version} {size} px, width {share * width:g}, step"
            whole = partial(task.train_step, images.permute(0, 3, 1, 2), step_of(count))
            yield Pair(name, count, whole, bare_reconstruction(task, size, count))


def bare_reconstruction(task: Any, size: int, count: int) -> Work:
    ready = HALF.apply(torch.randint(256, (count, 3, size, size), generator=generator(0)).byte())
    step = step_of(count)

    def run() -> None:
        step.update(task.adam, F.mse_loss(reconstruct(task, ready, step.random), ready))

    return run


def inpainting(width: float) -> Pair:
    """The joint loss, on noise: what it shows changes no time."""
    config = InpaintingConfig(width=width, batch_size=INPAINTING)
    task: Any = channels_last(build_pretext("inpainting", config, HALF)[0].train())
    task.optimizers()
    images = torch.randint(256, (INPAINTING, SIZE, SIZE, 3), generator=generator(0)).byte()
    images, step = images.permute(0, 3, 1, 2), step_of(INPAINTING)
    hidden = torch.where(task.holes(step.random).bool(), task.colour, HALF.apply(images))
    bare = bare_inpainting(task, hidden, HALF.apply(images)[..., task.patch, task.patch])
    name = f"inpainting@{Inpainting.version}, step"
    return Pair(name, INPAINTING, lambda: task.train_step(images, step), bare)


def bare_inpainting(task: Any, hidden: Tensor, truth: Tensor) -> Work:
    """Generator and discriminator forward and back: it sees the truth, and what is made twice."""
    truth = truth.contiguous(memory_format=torch.channels_last)
    top = task.encoder.maps[-1]

    def run() -> None:
        task.zero_grad(set_to_none=True)
        made = task.decoder(task.encoder(hidden, [top])[top])
        for patches in (truth, made.detach()):
            task.discriminator(patches).sum().backward()
        task.discriminator.requires_grad_(False)
        task.discriminator(made).sum().backward()
        task.discriminator.requires_grad_(True)

    return run


def by_recipe(width: float) -> Iterator[Pair]:
    """Those that have a recipe small, by it; beside them the passes of their networks.

    What a step costs above them are views or tiles, loss and update.
    """
    count = BY_RECIPE if width == 1 else 4
    for method in catalogue.names("pretext"):
        kind: Any = catalogue.pretext(method)
        if "small" not in getattr(kind.Config, "recipes", {}):
            continue
        fields = kind.Config.model_fields if width < 1 else ()
        toy = {k: v for k, v in (TOY | TOYS.get(method, {})).items() if k in fields}
        config = kind.Config(recipe="small", batch_size=count, **toy)
        of_set = max(count, getattr(config, "clusters", 0))  # enough images to be clustered
        task: Any = channels_last(build_pretext(method, config, HALF, of_set)[0].train())
        task.optimizers()
        side = stored_size(config.image_size)
        images = torch.randint(256, (count, side, side, 3), generator=generator(0)).byte()
        whole = partial(task.train_step, images.permute(0, 3, 1, 2), step_of(count))
        # A watch has no weights.
        named = {
            n: part for n, part in task.named_children() if any(True for _ in part.parameters())
        }
        parts = [part for name, part in named.items() if name not in ("teacher", "queue")]
        bare = bare_step(task, given([*parts, *named.get("teacher", ())], whole))
        yield Pair(f"{method}@{kind.version} small@1, step", count, whole, bare)


# ---- the evaluations
def evaluated(kind: type[FineTuned], data: str, width: float) -> Iterator[Pair]:
    """A step of a training, and test images."""
    layer, count, parts = EVALUATIONS[kind]
    known = kind.Config.model_fields
    settings = {"head": round(4096 * width)} if "head" in known else {}
    chosen: Any = {"batch_size": count, **settings}
    harness: Any = kind(kind.Config(**chosen))
    spec = EncoderSpec(arch="alexnet", image_size=227, width=width, normalization=HALF)
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    if kind is LinearHead and not data.startswith("scenes"):
        data = SCENES  # one label an image
    dataset = catalogue.dataset(data)
    opened = [harness.open(dataset, split, spec) for split in ("train", "test")]
    train, test = harness.prepared(Subject(encoder, spec, (layer,)), *opened)
    network = channels_last(harness.network(encoder, layer, spec, train))
    weighty = [network.encoder, *map(network.get_submodule, parts)]
    yield of_step(harness, harness.learner(network, train, spec), train, count, weighty)
    yield of_test(harness, network, test, spec, weighty)


def of_step(harness: Any, task: Learner, train: Any, count: int, parts: Parts) -> Pair:
    task.optimizers()
    which = np.arange(len(train))[-count:]
    batch = train.batch(which)
    step = step_of(len(which), torch.from_numpy(which), **batch)

    def whole() -> None:
        task.train()
        task.train_step(batch["images"], step)

    return Pair(
        f"{harness.protocol}, step", len(which), whole, bare_step(task, given(parts, whole))
    )


def of_test(harness: Any, network: Any, test: Any, spec: EncoderSpec, parts: Parts) -> Pair:
    which = slice(0, min(harness.scored, len(test)))
    images = test.images(which)

    @torch.no_grad()
    def whole() -> None:
        network.eval()
        harness.predict(network, images, test, which, spec)

    calls = given(parts, whole)

    @torch.no_grad()
    def bare() -> None:
        for part, inputs in calls:
            output_of(part, inputs)

    return Pair(f"{harness.protocol}, test images", which.stop, whole, bare)


def given(parts: Parts, work: Work) -> Calls:
    """What each part is given in the course of `work`, call by call."""
    calls: Calls = []
    hooks = [
        part.register_forward_pre_hook(lambda part, inputs: calls.append((part, inputs)))
        for part in parts
    ]
    work()
    for hook in hooks:
        hook.remove()
    return [(part, tuple(map(_ready, inputs))) for part, inputs in calls]


def _ready(given: Any) -> Any:
    return given.detach() if isinstance(given, Tensor) else given


def bare_step(task: nn.Module, calls: Calls) -> Work:
    """Each part forward and back; gradients go to the first part's weights, not to its images.

    A part that learns nothing, a teacher's, goes forward only.
    """
    for part, (first, *_rest) in calls:
        learns = any(weight.requires_grad for weight in part.parameters())
        first.requires_grad_(learns and part is not calls[0][0])

    def bare() -> None:
        task.zero_grad(set_to_none=True)
        for part, inputs in calls:
            made = output_of(part, inputs)
            if made.requires_grad:
                made.backward(torch.ones_like(made))

    return bare


def output_of(part: nn.Module, inputs: Sequence[Any]) -> Tensor:
    """One tensor, whatever a part gives."""
    made = part(*inputs)
    made = list(made.values()) if isinstance(made, dict) else made
    if isinstance(made, Tensor):
        return made
    return torch.cat([each.flatten() for each in made])


if __name__ == "__main__":
    kinds: tuple[Any, ...] = (str, int, float)
    for text in lines(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=False))):
        print(text, flush=True)
