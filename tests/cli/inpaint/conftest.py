"""Networks that fill holes."""

import pytest

from helpers.inpaint import Runs
from pretext.inpainting import InpaintingConfig
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretext import EncoderConfig
from ssl_bench.training.pretrain import pretrain


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Starting weights of unit scale: what two steps leave of the others paints all alike."""
    folder, how = tmp_path_factory.mktemp("runs"), Runtime(workers=0, devices="1")
    made = []
    for mask in ("central", "random-region"):
        config = InpaintingConfig(
            width=0.05, bottleneck=8, steps=2, batch_size=4, mask=mask, init="fan-in"
        )
        record = pretrain("inpainting", config, "scenes:train=60,test=20", folder, how)
        made.append(f"inpainting@{record.key}")
    tiny = EncoderConfig(image_size=64, width=0.1)
    pretrain("random", tiny, "scenes:train=60,test=20", folder, how)
    return Runs(folder, made[0], made[1], "random")
