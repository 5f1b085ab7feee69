"""Pictures say what they are of: titles that are whole, a legend of the colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.refusals import TOY
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.evaluation.harness import Subject
from ssl_bench.pictures import plots

TITLE = (
    "detection/fast-rcnn@1 steps=2 batch_size=2 short=64 longest=96 proposals=rpn head=16 rois=8, "
    "conv5: context-encoder on voc:VOC2007,train=train,test=val"
)
NAMES = [f"class {i}" for i in range(12)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path, dpi: figures.append(figure))
    return figures


def boxes(images: int, *labels: int) -> np.ndarray:
    rows = [[label, 0.9, 5, 5, 30 + 3 * label, 40] for label in labels]
    return np.tile(np.array(rows, np.float32), (images, 1, 1))


def draw_all(place: Path) -> None:
    images = [np.zeros((60, 80, 3), np.uint8)] * 2
    masks = [np.eye(60, 80, dtype=np.uint8)] * 2
    plots.box_grid(images[:1], boxes(1, 0, 11), boxes(1, 0), NAMES, place, TITLE)
    plots.mask_grid(images[:1], masks[:1], masks[1:], ["background", *NAMES], place, TITLE)
    plots.precision_recall_curves({"a": ([0, 1], [1, 0.5])}, place, TITLE)
    plots.picture_grid({"holed": torch.zeros(1, 3, 8, 8)}, place, TITLE)


def test_titles_are_whole_however_narrow_the_picture(drawn: list[Any], tmp_path: Path) -> None:
    draw_all(tmp_path / "x.png")
    assert len(drawn) == 4
    for figure in drawn:
        (title,) = [text for text in figure.texts if text.get_text().startswith("detection/")]
        figure.draw_without_rendering()
        assert "".join(title.get_text().split()) == TITLE.replace(" ", "")
        assert title.get_window_extent().width <= figure.bbox.width


def test_names_of_rows_and_panels_stay_beside_their_own(drawn: list[Any], tmp_path: Path) -> None:
    rows = ["what the generator makes of the code of each image", "its truth", "and once more"]
    plots.picture_grid({name: torch.zeros(2, 3, 8, 8) for name in rows}, tmp_path / "x.png", "")
    classes = ["hammerhead shark, of the family Sphyrnidae", "great white shark", "tench"]
    plots.precision_recall_curves({n: ([0, 1], [1, 0.5]) for n in classes}, tmp_path / "x.png", "")
    for figure, names in zip(drawn, (rows, classes), strict=True):
        figure.draw_without_rendering()
        labels = [text for axis in figure.axes for text in (axis.yaxis.label, axis.title)]
        shown = [text for text in labels if text.get_text()]
        assert ["".join(text.get_text().split()) for text in shown] == [
            name.replace(" ", "") for name in names
        ]
        boxes = [text.get_window_extent() for text in shown]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_legend_has_the_classes_that_occur_in_the_masks_colours(
    drawn: list[Any], tmp_path: Path
) -> None:
    draw_all(tmp_path / "x.png")
    legend = drawn[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "object (white)", "class 0", "class 11",
    ]  # fmt: skip
    found = [patch.get_facecolor()[:3] for patch in legend.get_patches()[1:]]
    np.testing.assert_allclose(found, 1.5 * plots.voc_palette()[[1, 12]] / 255)


def test_a_title_names_protocol_layer_encoder_and_data() -> None:
    spec = EncoderSpec(
        arch="alexnet", width=0.25, image_size=64,
        normalization=Normalization(mean=(0, 0, 0), std=(1, 1, 1)),
    )  # fmt: skip
    subject = Subject(build_encoder(spec), spec, ("conv5",), name="random", data="scenes")
    assert subject.title("a@1 k=2", "conv5") == "a@1 k=2, conv5: random on scenes"


def test_a_run_s_picture_has_that_title(
    bench: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("ssl_bench.pictures.plots.mask_grid", lambda *words: seen.append(words[-1]))
    words = ("--data", "scenes:train=4,test=2", "--workspace", workspace)
    assert bench("pretrain", "random", *TOY, *words).code == 0
    words += ("--steps", 1, "--batch-size", 2, "--head", 4, "--longest", 64, "--workers", 0)
    made = bench("segment", *words)
    assert made.code == 0, made.err
    (title,) = seen
    assert title.startswith("segmentation/fcn32s@1 steps=1")
    assert title.endswith("pool5: random on scenes:train=4,test=2")
