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
    ("protocol", "metric", "layer", "method", "value"),
    [
        ("finetune/krahenbuhl16@1", "map_uninterpolated", "pool5", "context-encoder", 56.5),
        ("finetune/krahenbuhl16@1", "map_uninterpolated", "pool5", "kmeans-init", 56.6),
        ("detection/fast-rcnn@1", "map11", "conv5", "random", 43.4),
        ("segmentation/fcn32s@1", "mean_iu", "pool5", "autoencoder", 25.2),
        ("linear/zhang16@1", "top1", "conv5", "context-encoder", 15.5),
        ("linear/zhang16@2", "top1", "conv1", "random", 11.6),  # whatever the version
    ],
)
def test_the_papers_numbers(records, protocol, metric, layer, method, value):
    found = published_for(measured(records, layer, metric, protocol=protocol, method=method))
    assert found is not None
    assert found[0] == value


def test_other_layers_methods_and_protocols_have_none(records):
    assert published_for(measured(records, "conv5", protocol="linear/logreg@1")) is None
    one = measured(records, "pool5", protocol="linear/zhang16@1", method="random")
    assert published_for(one) is None
    one = measured(records, "conv5", protocol="linear/zhang16@1", method="rotation")
    assert published_for(one) is None


@pytest.mark.parametrize(("arch", "value"), [("alexnet", 11.6), ("dcgan", None)])
def test_a_published_number_is_of_the_papers_network(records, arch, value):
    settings = {"protocol": "linear/zhang16@1", "pretraining": {"arch": arch}}
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
        method="context-encoder", data="voc07-mini", pretraining=settings,
        pretraining_data="scenes", printed="finetune/krahenbuhl16@1 steps=1000 rescale=True",
    )  # fmt: skip
    found = published_for(one)
    assert found is not None
    _, source, number = found
    assert list(deviations(one, source, number)) == [
        "steps=1000",
        "rescale=True",
        "on voc07-mini, not voc07",
        "96 px, not 227",
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
    found = [d for d in deviations(one, source, source.number[0]) if "pretrained" in d]
    if "kmeans" not in method:  # the others' images are told elsewhere
        found = [d for d in found if "pretrained on" not in d]
    assert found == said


def test_published_numbers_name_what_is_installed():
    for source in sources():
        for number in source.number:
            assert number.protocol in protocols()
            methods = [name for name in number.values if not name.startswith("nearest")]
            assert set(methods) <= set(catalogue.names("pretext"))
