"""Every pretext and every evaluation on a real GPU, beside the CPU; skipped where there is none.

What a stub device cannot show: kernels that exist, arithmetic in bf16, copies that wait.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.refusals import only
from ssl_bench import catalogue, runtime
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.workspace import predictions_of
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import pretrain
from training.test_any_device import CASES, CASES2, DATA, SMALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RUNTIME = Runtime(workers=0, devices="1")


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
    known = catalogue.pretext(name).Config.model_fields.keys()
    known -= {"width", "init"} if "arch" in more else set()
    given = SMALL | more | settings
    config = catalogue.pretext(name).Config(**{k: v for k, v in given.items() if k in known})
    pretrain(name, config, DATA, place, RUNTIME, until=until)
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
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encoders")
    settings = {"image_size": 64, "width": 0.1, "init": "fan-in", "steps": 1, "batch_size": 4}
    config = catalogue.pretext("context-encoder").Config(**settings)
    pretrain("context-encoder", config, DATA, place, RUNTIME)
    return place


# Their fc6 and fc7 drop outputs by torch's own generators, which differ between devices; selective
# search needs opencv-contrib.
DROPPED = {"finetune", "segment", "detect"}


@pytest.mark.parametrize(("name", "more"), CASES2)
def test_an_evaluation_gives_the_same_predictions_on_a_gpu(
    name, more, workspace, tmp_path, without_gpu
):
    if more.get("proposals") == "selective-search":
        pytest.importorskip("cv2.ximgproc", reason="needs opencv-contrib")
    harness = catalogue.evaluation(name)

    def measured(place: Path) -> list[Any]:
        made = evaluate(
            [(harness(harness.Config(**more)), ["conv4"])],
            Reference("context-encoder", workspace),
            DATA,
            place,
            RUNTIME,
        )
        return [predictions_of(record, place) for record in made]

    with without_gpu():
        here = measured(tmp_path / "cpu")
    for one, other in zip(here, measured(tmp_path / "gpu"), strict=True):
        for array in one:
            if name in DROPPED:
                assert one[array].shape == other[array].shape, array
                assert np.isfinite(other[array]).all(), array
            else:
                np.testing.assert_allclose(one[array], other[array], rtol=1e-2, atol=1e-2)
