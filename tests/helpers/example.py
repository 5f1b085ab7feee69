"""The pretexts of docs/example and ours that share or keep something, at their smallest.

In their own processes:

python example.py kill OUT                    each is killed by SIGKILL in step 4, in workspace OUT
python example.py train OUT …                 each is trained to its end, in each workspace
torchrun … example.py gradients OUT           losses and gradients of two steps, OUT/NAME.pt
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from helpers.places import ROOT
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.records.protocols import _installed
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.loop import train
from ssl_bench.training.pretrain import pretrain

EXAMPLE = ROOT / "docs" / "example"
DATA = "scenes:train=24,test=4"
# Batch normalisation and SiLU: where a ReLU's input is zero but for rounding, gradients jump.
NORMED = "timm:test_efficientnet"
SETTINGS: dict[str, dict[str, Any]] = {
    "contrast": {"arch": NORMED, "image_size": 64, "lr": 0.01},
    "momentum": {"arch": NORMED, "image_size": 64, "lr": 0.01, "queue": 20},
    "clusters": {"image_size": 64, "width": 0.1, "init": "fan-in", "clusters": 4},
    "masked": {"arch": "timm:test_vit", "image_size": 64, "warmup": 2, "lr": 1e-3},
}
RECIPE = {"recipe": "small", "arch": NORMED}
SMALL = RECIPE | {"projector": (32, 16)}
VIT = {"recipe": "small", "arch": "timm:test_vit", "image_size": 64, "warmup": 0}
CROPS = {"small_crops": 2, "frozen": 1}
# Ours that look at the images of all devices, if only for a head's statistics, or at some patches.
GATHERING: dict[str, dict[str, Any]] = {
    "simclr": SMALL,
    "moco-v2": SMALL | {"queue": 20},
    "barlow-twins": SMALL,
    "vicreg": SMALL,
    "relative-position": RECIPE | {"hidden": 32},
    "jigsaw": RECIPE | {"hidden": 32, "permutations": 20},
    "colorization": RECIPE | {"hidden": 32},
    "split-brain": RECIPE | {"hidden": 32},
    "npid": SMALL | {"projector": (16,)},
    "swav": SMALL | CROPS | {"prototypes": 24, "queue": 8, "queue_from": 0},
    "dino": SMALL | CROPS | {"outputs": 24, "clip": 3.0},
    "bigan": RECIPE | {"latent": 8, "channels": 4},
    "mae": VIT | {"decoder_depth": 1, "decoder_width": 32},
    "lejepa": SMALL | {"small_crops": 2, "slices": 16, "warmup": 0},
    "ibot": VIT | CROPS | {"projector": (32, 16), "outputs": 24},
    "i-jepa": VIT | {"predictor_depth": 1, "predictor_width": 32},
}
ALONE: dict[str, dict[str, Any]] = {
    "deepcluster": {"image_size": 64, "width": 0.1, "init": "fan-in", "clusters": 4, "hidden": 8}
}
RESUMED = [*SETTINGS, "npid", "deepcluster"]  # of ours those that keep something of each image
KILLED_IN = 3  # where an epoch begins: 8 of 24 images are seen in a step


def forget() -> None:
    """What the process found of packages before is looked for again."""
    catalogue._found.cache_clear()
    _installed.cache_clear()


def config_of(name: str, steps: int = 6) -> Any:
    """The method's settings, on eight images a step."""
    kind: Any = catalogue.pretext(name)
    return kind.Config(**{"steps": steps, "batch_size": 8, **(SETTINGS | GATHERING | ALONE)[name]})


def trained(name: str, workspace: Path) -> Any:
    """The record of the method, with a checkpoint after each step."""
    runtime = Runtime(workers=0, devices="1", checkpoint_steps=1)
    return pretrain(name, config_of(name), DATA, workspace, runtime)


def kill(workspace: Path) -> None:
    """Each method in a child of its own, which does not live to the end."""
    for name in RESUMED:
        child = os.fork()
        if not child:
            die_in(catalogue.pretext(name), KILLED_IN)
            trained(name, workspace)
            os._exit(1)  # it should not have got here
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def die_in(kind: Any, index: int) -> None:
    plain = kind.train_step

    def train_step(self: Any, images: torch.Tensor, step: Any) -> Any:
        if step.index == index:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, images, step)

    kind.train_step = train_step


def in_64_bit(pretext: Any) -> None:
    """All networks of a method, and whatever pixels and numbers they are given."""
    pretext.double()
    for part in {*pretext.children(), *(m for m in pretext.modules() if isinstance(m, Encoder))}:
        part.register_forward_pre_hook(lambda _, given: tuple(map(_widened, given)))


def _widened(value: Any) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def gradients(name: str, folder: Path, runtime: Runtime) -> dict[str, torch.Tensor]:
    """The losses of two steps, which the log has, and the gradients of the second.

    Of ours in 64 bit: their normalised outputs of eight images amplify what 32 bit round.
    """
    config, folder = config_of(name, steps=2), folder / name
    folder.mkdir(parents=True, exist_ok=True)
    store = open_store(catalogue.dataset(DATA), "train", config.image_size, workers=0)
    pretext, _ = build_pretext(name, config, store.normalization, len(store))
    if name in GATHERING:
        in_64_bit(pretext)
    train(pretext, store, config, 0, runtime, folder)
    found = {n: p.grad for n, p in pretext.named_parameters() if p.grad is not None}
    lines = (folder / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return found | {"loss": torch.tensor(losses, dtype=next(iter(found.values())).dtype)}


if __name__ == "__main__":
    out = Path(sys.argv[2])
    if sys.argv[1] == "kill":
        kill(out)
    elif sys.argv[1] == "train":
        for place in map(Path, sys.argv[2:]):
            for method in RESUMED:
                trained(method, place)
    else:
        shared = Runtime(workers=0, devices="auto")
        for method in sys.argv[3:]:
            grads = gradients(method, out, shared)
            if shared.fabric().is_global_zero:
                torch.save(grads, out / f"{method}.pt")
