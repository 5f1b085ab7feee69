"""Published numbers: as the papers print them, beside measured ones only, with what differs."""

from typing import Any

import pytest

from helpers.places import RESULTS
from helpers.predictions import changed
from ssl_bench import catalogue
from ssl_bench.records.protocols import protocols
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.measured import Measured
from ssl_bench.tables.published import deviations, published_for, sources

VOC07 = {"data": "voc07", "test_images": 4952}
IMAGENET = {"data": "folder:ImageNet", "test_images": 50_000}


def measured(records: list[Any], layer: str, metric: str = "top1", **changes: Any) -> Measured:
    """A committed record made to look like another one."""
    own = {name: changes.pop(name) for name in ("method", "data", "protocol") if name in changes}
    if "printed" in changes:
        changes["protocol"] = changes.pop("printed")
    details = {"column": None, "encoder": None, **changes}
    return Measured(changed(records[0], layer=layer, details=details, **own), metric, None)


@pytest.fixture(scope="module")
def records() -> list[Any]:
    return read_records(RESULTS / "quickstart", "evaluation")


@pytest.mark.parametrize(
    ("protocol", "metric", "layer", "method", "value", "of"),
    [
        ("finetune/krahenbuhl16@1", "map_uninterpolated", "pool5", "context-encoder", 56.5, VOC07),
        ("finetune/krahenbuhl16@1", "map_uninterpolated", "pool5", "kmeans-init", 56.6, VOC07),
        ("detection/fast-rcnn@1", "map11", "conv5", "random", 43.4, VOC07),
        ("detection/fast-rcnn@1", "map11", "conv5", "rotation", 54.4, VOC07),
        ("linear/zhang16@1", "top1", "conv5", "context-encoder", 15.5, IMAGENET),
        ("linear/zhang16@1", "top1", "conv4", "relative-position", 31.7, IMAGENET),
        ("linear/zhang16@1", "top1", "conv3", "jigsaw", 34.7, IMAGENET),
        ("linear/zhang16@1", "top1", "conv5", "colorization", 31.8, IMAGENET),
        ("finetune/krahenbuhl16@1", "map_uninterpolated", "pool5", "split-brain", 67.1, VOC07),
        ("linear/zhang16@2", "top1", "conv1", "random", 11.6, IMAGENET),  # whatever the version
    ],
)
def test_the_papers_numbers(records, protocol, metric, layer, method, value, of):
    one = measured(records, layer, metric, protocol=protocol, method=method, **of)
    found = published_for(one)
    assert found is not None
    assert found[0] == value


@pytest.mark.parametrize(
    "of", [{**VOC07, "test_images": 2476}, {**VOC07, "data": "voc07-mini"}, {"data": "scenes"}]
)
def test_other_test_images_have_none(records, of):
    one = measured(
        records, "conv5", "map11", protocol="detection/fast-rcnn@1", method="random", **of
    )
    assert published_for(one) is None


def test_other_layers_methods_and_protocols_have_none(records):
    assert published_for(measured(records, "conv5", protocol="linear/logreg@1", **IMAGENET)) is None
    one = measured(records, "pool5", protocol="linear/zhang16@1", method="random", **IMAGENET)
    assert published_for(one) is None
    one = measured(records, "conv5", protocol="linear/zhang16@1", method="rotation", **IMAGENET)
    assert published_for(one) is None


@pytest.mark.parametrize(("arch", "value"), [("alexnet", 11.6), ("dcgan", None)])
def test_a_published_number_is_of_the_papers_network(records, arch, value):
    settings = {"protocol": "linear/zhang16@1", "pretraining": {"arch": arch}, **IMAGENET}
    found = published_for(measured(records, "conv1", method="random", **settings))
    assert (found[0] if found else None) == value


def test_every_deviation_is_spelt_out(records):
    settings = {
        "width": 0.5,
        "steps": 600,
        "seed": 0,
        "init": "fan-in",
        "lr": 1e-4,
        "batch_size": 32,
    }
    one = measured(
        records, "pool5", "map_uninterpolated", protocol="finetune/krahenbuhl16@1",
        method="context-encoder", **VOC07, pretraining=settings,
        pretraining_data="scenes", printed="finetune/krahenbuhl16@1 steps=1000 rescale=True",
    )  # fmt: skip
    found = published_for(one)
    assert found is not None
    assert list(deviations(one, found[1])) == [
        "steps=1000",
        "rescale=True",
        "80 px, not 227",
        "width 0.5, not 1",
        "pretrained with init=fan-in, batch_size=32",
        "pretrained on scenes, not imagenet",
        "600 pretraining steps, not 100,000",
    ]


@pytest.mark.parametrize(
    ("method", "pretraining", "said"),
    [
        ("random", {"init": "gaussian"}, []),
        ("random", {"init": "fan-in"}, ["pretrained with init=fan-in"]),
        ("kmeans-init", {"init": "gaussian"}, ["pretrained on scenes, not imagenet"]),
        ("inpainting", {"loss": "joint"}, []),
        ("inpainting", {"loss": "l2"}, ["pretrained with loss=l2"]),
        ("context-encoder", {"mask": "central"}, ["pretrained with mask=central, lr=0.0001"]),
    ],
)
def test_the_pretexts_own_settings_are_deviations(records, method, pretraining, said):
    """The rate follows the mask: 1e-4 is the paper's for regions, not for the central mask."""
    full = {"lr": 1e-4} if method == "context-encoder" else {}
    one = measured(
        records, "conv1", protocol="linear/zhang16@1", method=method,
        pretraining={**full, **pretraining},
    )  # fmt: skip
    source = next(s for s in sources() if "table 2" in s.name)
    found = [d for d in deviations(one, source) if "pretrained" in d]
    if "kmeans" not in method:  # the others' images are told elsewhere
        found = [d for d in found if "pretrained on" not in d]
    assert found == said


def test_published_numbers_name_what_is_installed():
    for source in sources():
        for number in source.number:
            assert number.protocol in protocols()
            methods = [name for name in number.values if not name.startswith("nearest")]
            assert set(methods) <= set(catalogue.names("pretext"))
