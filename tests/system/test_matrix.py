"""Every kind of encoder with every pretext and evaluation: it works, or one line says why not.

One step of training on a few tiny images. What is refused, and why, stands in REFUSED.
"""

from collections import ChainMap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torchvision.models import swin_transformer

import ssl_bench.pictures.plots
from helpers import golden
from ssl_bench import catalogue
from ssl_bench.cli.options import validated
from ssl_bench.errors import BenchError
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.record import EvaluationRecord, PretrainRecord
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import pretrain

NARROW = {"image_size": 64, "width": 0.1}
SMALL = {"image_size": 64, "width": 1.0, "init": "own"}
ENCODERS: dict[str, dict[str, Any]] = {
    "alexnet": NARROW,
    "dcgan": NARROW | {"image_size": 128},
    "torchvision:resnet18": SMALL,
    "torchvision:swin_t": SMALL,
    "timm:test_resnet": SMALL,  # timm's own for tests: the same kinds, of a tenth the size
    "timm:test_vit": SMALL,
    "timm:test_convnext": SMALL,
}
SQUARES, WHOLE = "scenes:train=60,test=10", "scenes:train=12,test=4"
STEP = {"steps": 1, "batch_size": 4}
FEW = {  # what costs time in golden numbers' settings, which are small already
    "dimensions": 64, "head": 8, "rescale": False, "crops": 1, "strengths": 2, "costs": (1.0,),
    "folds": 2, "shots": (1,), "draws": 1,
}  # fmt: skip
RUNTIME = Runtime(workers=0, devices="1")

ONE_SIZE = {"timm:test_vit"}  # that it is built for
# The encoders that a pretext, or an evaluation, refuses, and the reason in its line.
Refusals = dict[str, tuple[set[str], str]]
PRETEXTS: Refusals = {
    "ibot": (ENCODERS.keys() - {"timm:test_vit"}, "ibot takes vision transformers of timm"),
    "i-jepa": (ENCODERS.keys() - {"timm:test_vit"}, "i-jepa takes vision transformers of timm"),
    "inpainting": (ENCODERS.keys() - {"dcgan"}, "--arch: String should match pattern '^dcgan$'"),
    "kmeans-init": (ENCODERS.keys() - {"alexnet"}, "kmeans-init takes chains of convolutions"),
    "mae": (ENCODERS.keys() - {"timm:test_vit"}, "mae takes vision transformers of timm"),
    "split-brain": (
        {"torchvision:swin_t", "timm:test_vit", "timm:test_convnext"},
        "split-brain takes networks whose channels can be cut into halves",
    ),
    "vicreg": ({"timm:test_vit"}, "--optimizer lars is for networks with batch normalisation"),
}
# They meet the encoder as others do: simclr, with one view a pass as byol, with small ones as dino,
# relative-position, or colorization.
LIKE_OTHERS, FEW_ENCODERS = (
    {"moco-v2", "barlow-twins", "simsiam", "vicreg", "npid", "swav", "jigsaw", "lejepa", "bigan"},
    {"alexnet", "timm:test_vit"},
)
EVALUATIONS: Refusals = {
    "detect": (ONE_SIZE, "takes images of one size only"),
    "segment": (ONE_SIZE, "takes images of one size only"),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Nothing is drawn: pictures take longer than all the rest. Swins are narrow and shallow."""
    swin, few = swin_transformer._swin_transformer, [1, 1, 1, 1]
    small = {"embed_dim": 24, "depths": few, "num_heads": few}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl_bench.pictures.plots, "picture_grid", lambda *_, **__: None)
        patch.setattr(swin_transformer, "_swin_transformer", lambda **own: swin(**own | small))
        yield tmp_path_factory.mktemp("matrix")


def settings(config: Any, *given: dict[str, Any]) -> Any:
    """Those of `given` that the configuration has, and one step where it trains."""
    steps = STEP if "steps" in config.model_fields else {}  # a probe's batches stay as they are
    return validated(config, dict(ChainMap(steps, *reversed(given))))


@cache
def pretrained(method: str, arch: str, workspace: Path) -> PretrainRecord:
    """A run of that pretext; the evaluations share them."""
    Config = catalogue.pretext(method).Config
    config = settings(Config, golden.PRETEXTS.get(method, {}), {"arch": arch}, ENCODERS[arch])
    return pretrain(method, config, SQUARES, workspace, RUNTIME)


@cache
def encoder(method: str, arch: str, workspace: Path) -> Reference:
    return Reference(f"{method}@{pretrained(method, arch, workspace).key}", workspace)


def measured(name: str, arch: str, workspace: Path) -> list[EvaluationRecord]:
    """One evaluation of its usual layer, by golden numbers' small settings."""
    harness = catalogue.evaluation(name)
    stored = golden.EVALUATIONS.get(harness.protocol.partition("@")[0])
    config = settings(harness.Config, stored[3] if stored else {}, FEW)
    data = WHOLE if stored and stored[2] == golden.WHOLE else SQUARES
    fills = "context-encoder" if name == "inpainting" else "random"
    reference = encoder(fills, arch, workspace)
    return evaluate([(harness(config), [])], reference, data, workspace, RUNTIME)


def expect(refusals: Refusals, name: str, arch: str, make: Any, workspace: Path) -> None:
    """It works, or is refused in one line; whatever else is raised passes through."""
    refused, reason = refusals.get(name, (set(), ""))
    if arch not in refused:
        assert make(name, arch, workspace)
        return
    with pytest.raises(BenchError) as refusal:
        make(name, arch, workspace)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arch", "method"),
    [
        (arch, method)
        for arch in ENCODERS
        for method in catalogue.names("pretext")
        if method not in LIKE_OTHERS or arch in FEW_ENCODERS
    ],
)
def test_every_pretext_trains_every_encoder_or_refuses_it(arch, method, workspace):
    expect(PRETEXTS, method, arch, pretrained, workspace)


@pytest.mark.parametrize("arch", [arch for arch in ENCODERS if ":" in arch])
def test_the_random_row_is_where_the_others_began(arch, workspace):
    floor = pretrained("random", arch, workspace).details.encoder
    assert floor.start == floor.digest == encoder("random", arch, workspace).digest
    for method in ("autoencoder", "context-encoder"):
        made = pretrained(method, arch, workspace).details.encoder
        assert made.start == floor.digest != made.digest


@pytest.mark.parametrize("name", catalogue.names("eval"))
@pytest.mark.parametrize("arch", ENCODERS)
def test_every_evaluation_measures_every_encoder_or_refuses_it(arch, name, workspace):
    expect(EVALUATIONS, name, arch, measured, workspace)


def test_every_refusal_is_of_a_name_that_is_registered():
    assert PRETEXTS.keys() <= set(catalogue.names("pretext"))
    assert EVALUATIONS.keys() <= set(catalogue.names("eval"))
