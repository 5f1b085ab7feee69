"""Where no encoder is named: runs that were pretrained alike, and what is taken is said."""

import time
from pathlib import Path
from typing import Any

import pytest

from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.defaults import default_encoders, newest_that_inpaints
from ssl_bench.records.record import PretrainDetails, PretrainIdentity, PretrainRecord, SavedEncoder
from ssl_bench.records.workspace import Run, find_run


def run(
    workspace: Path, method: str, data: str = "scenes", steps: int | None = 200, batch: int = 64,
    arch: str = "alexnet", size: int = 96, seed: int = 0,
) -> PretrainRecord:  # fmt: skip
    """A record of a pretraining, without weights; without steps it is untrained."""
    trained = {} if steps is None else {"steps": steps, "batch_size": batch}
    course: dict[str, Any] = {} if steps is None else {"training": {"devices": 1}}
    spec = EncoderSpec(arch=arch, image_size=size, normalization=HALF)
    config = {"arch": arch, "image_size": size, "width": 1.0, "seed": seed, **trained}
    identity = PretrainIdentity(
        kind="pretrain", method=method, version=1, config=config, data=f"digest of {data}"
    )
    made = Run(workspace, PretrainRecord, method, identity)
    details = PretrainDetails(
        skipped_images=[],
        encoder=SavedEncoder(spec=spec.plain(), digest="d", start="s"),
        **course,
    )
    with made.working():
        return made.finish(
            method=method, data=data, metrics={}, details=details, started=time.monotonic(),
            device="cpu",
        )  # fmt: skip


def ref(record: PretrainRecord) -> str:
    return f"{record.method}@{record.key[:12]}"


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_runs_of_the_newest_ones_kind_are_taken_and_said(tmp_path, capsys):
    """The newer autoencoder was trained on other images; the older one is like the newest run."""
    alike, random = run(tmp_path, "autoencoder"), run(tmp_path, "random", "two", None)
    run(tmp_path, "autoencoder", "two")
    newest = run(tmp_path, "context-encoder")
    assert default_encoders(tmp_path) == [ref(alike), ref(newest), ref(random)]
    assert lines(capsys) == [
        f"{ref(alike)}: 200 steps of 64 on scenes, alexnet 96 px",
        f"{ref(newest)}: 200 steps of 64 on scenes, alexnet 96 px",
        f"{ref(random)}: untrained, alexnet 96 px",  # random weights saw no images
    ]


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        ({"steps": 30}, "length"),
        ({"data": "two"}, "images"),
        ({"size": 64, "data": "two"}, "image size and images"),
        ({"arch": "timm:resnet18"}, "network"),
    ],
)
def test_what_is_unlike_is_said(tmp_path, capsys, other, differing):
    lone, newest = run(tmp_path, "autoencoder", **other), run(tmp_path, "context-encoder")
    assert default_encoders(tmp_path) == [ref(lone), ref(newest)]
    said, _ = lines(capsys)
    assert said.endswith(f"; unlike {ref(newest)} in {differing}")


def test_as_many_images_in_other_batches_are_as_long(tmp_path, capsys):
    run(tmp_path, "autoencoder", steps=400, batch=32)
    run(tmp_path, "context-encoder", steps=200, batch=64)
    default_encoders(tmp_path)
    assert "unlike" not in "".join(lines(capsys))


def test_a_newest_run_without_training_has_the_newest_training_of_its_network_as_a_measure(
    tmp_path,
):
    old = run(tmp_path, "autoencoder", steps=30)
    run(tmp_path, "autoencoder", arch="timm:resnet18")
    measure = run(tmp_path, "context-encoder", steps=30)
    random = run(tmp_path, "random", steps=None)
    assert default_encoders(tmp_path) == [ref(old), ref(measure), ref(random)]


def test_another_network_is_left_out_and_said(tmp_path, capsys):
    """It has no layer pool5: the method's older run has."""
    older = run(tmp_path, "random", steps=None)
    newer = run(tmp_path, "random", steps=None, arch="timm:resnet18")
    lone = run(tmp_path, "autoencoder", arch="timm:resnet18")
    asked = ["pool5"]
    assert default_encoders(tmp_path, lambda e: e.check_layers(asked)) == [ref(older)]
    _, *left_out = lines(capsys)
    assert [line.partition(" is left out: unknown layer")[0] for line in left_out] == [
        ref(newer), ref(lone),
    ]  # fmt: skip


def test_a_layer_that_no_run_has_is_refused(tmp_path):
    run(tmp_path, "random")
    with pytest.raises(UsageError, match="unknown layer 'pol5'; did you mean pool5"):
        default_encoders(tmp_path, lambda encoder: encoder.check_layers(["pol5"]))


def test_the_run_that_inpaints_is_said(tmp_path, capsys):
    run(tmp_path, "inpainting", arch="dcgan", size=128)
    newest = run(tmp_path, "inpainting", arch="dcgan", size=128, seed=1)
    assert newest_that_inpaints(tmp_path) == ref(newest)
    assert lines(capsys) == [f"{ref(newest)}: 200 steps of 64 on scenes, dcgan 128 px"]


def test_a_key_of_two_runs_is_not_one_of_them(tmp_path):
    made = [run(tmp_path, "random", seed=seed) for seed in range(17)]  # two begin alike
    firsts = [record.key[0] for record in made]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    with pytest.raises(UsageError, match=f"random@{twice} is .* runs") as refused:
        find_run(tmp_path, f"random@{twice}")
    fitting = [record for record in made if record.key.startswith(twice)]
    assert all(ref(record) in str(refused.value) for record in fitting)
