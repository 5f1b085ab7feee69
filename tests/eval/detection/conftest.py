"""A few scenes and a small encoder."""

import pytest

from helpers.detection import PLAIN
from ssl_bench import catalogue
from ssl_bench.data.store.whole import open_whole
from ssl_bench.encoders.build import EncoderSpec, build_encoder


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=9,test=5")
    return [open_whole(data, split, "detection", 96, 128, workers=0) for split in ("train", "test")]


@pytest.fixture(scope="module")
def encoder():
    spec = EncoderSpec(arch="alexnet", image_size=64, width=0.05, normalization=PLAIN)
    return build_encoder(spec).eval()
