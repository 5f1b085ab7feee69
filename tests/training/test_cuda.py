"""Every pretext and every evaluation on a real GPU, beside the CPU; skipped where there is none.

What a stub device cannot show: kernels that exist, arithmetic in bf16, copies that wait.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.refusals import only
from ssl_bench import runtime
from ssl_bench.training.pretrain import pretrain
from training.test_any_device import CASES, CASES2, DATA, RUNTIME, config_of, measured

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def without_gpu() -> Callable[[], Any]:
    """`with without_gpu():` as where there is none."""

    @contextmanager
    def hidden() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            runtime._launch.cache_clear()
            yield
        runtime._launch.cache_clear()

    return hidden


def trained(
    name: str, more: dict[str, Any], place: Path, until: int | None = None, **settings: Any
) -> list[dict[str, Any]]:
    """The lines of its log; none for what is not trained by steps."""
    pretrain(name, config_of(name, more | settings), DATA, place, RUNTIME, until=until)
    logs = list(place.glob("pretrain/*/log.jsonl"))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


@pytest.mark.parametrize(("name", "more"), CASES)
def test_a_pretext_has_the_same_losses_on_a_gpu(name, more, tmp_path, without_gpu):
    with without_gpu():
        here = trained(name, more, tmp_path / "cpu", precision="32")
    there = trained(name, more, tmp_path / "gpu", precision="32")
    for one, other in zip(here, there, strict=True):
        for value in one.keys() - {"images_per_second", "data_wait"}:
            assert other[value] == pytest.approx(one[value], rel=2e-3, abs=1e-4), value
    record = json.loads(only(tmp_path / "gpu", "pretrain/*/record.json").read_text())
    assert record["provenance"]["device"].startswith("cuda: ")


@pytest.mark.parametrize(("name", "more"), CASES)
def test_a_pretext_trains_in_bf16(name, more, tmp_path):
    lines = trained(name, more, tmp_path, precision="bf16", steps=4)
    assert all(np.isfinite(value) for line in lines for value in line.values())


@pytest.mark.parametrize(
    ("name", "more"), [case for case in CASES if case[0] not in ("random", "kmeans-init")]
)
def test_a_step_does_not_wait_for_the_gpu(name, more, tmp_path):
    """Values are looked at every 20 steps; in between the CPU runs ahead."""
    short, long = (waits(name, more, tmp_path / str(n), n) for n in (22, 38))
    assert long < short + 16  # one a step would be 16 more


def waits(name: str, more: dict[str, Any], place: Path, steps: int) -> int:
    """How often the CPU waited for the GPU in a run of so many steps."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trained(name, more, place, until=steps, steps=100_000)  # far from its log's first line
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum("synchronizing" in str(one.message) for one in said)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one encoder, made on the GPU."""
    place = tmp_path_factory.mktemp("encoders")
    trained("context-encoder", {"steps": 1}, place)
    return place


# Their fc6 and fc7 drop outputs by torch's own generators, which differ between devices; selective
# search needs opencv-contrib.
DROPPED = {"finetune", "segment", "detect"}


@pytest.mark.parametrize(("name", "more"), CASES2)
def test_an_evaluation_gives_the_same_predictions_on_a_gpu(
    name, more, encoders, tmp_path, without_gpu
):
    if more.get("proposals") == "selective-search":
        pytest.importorskip("cv2.ximgproc", reason="needs opencv-contrib")
    cpu, gpu = (shutil.copytree(encoders, tmp_path / place) for place in ("cpu", "gpu"))
    with without_gpu():
        here = measured(name, more, cpu)
    for one, other in zip(here, measured(name, more, gpu), strict=True):
        for array in one:
            if name in DROPPED:
                assert one[array].shape == other[array].shape, array
                assert np.isfinite(other[array]).all(), array
            else:
                np.testing.assert_allclose(one[array], other[array], rtol=1e-2, atol=1e-2)
