"""Detection with Fast R-CNN, `detection/fast-rcnn@1`: VOC's mean AP after training on boxes.

Girshick, ICCV 2015 (arXiv 1504.08083), as published for CaffeNet (networks/fast_rcnn.py), trained
by SGD for a fixed number of steps from the encoder's weights, with a fresh fc6 and fc7: 40,000
updates of 2 images, learning rate 1e-3 and a tenth of it from 30,000 on, conv1 frozen. Nothing is
chosen: the last step counts. Published with it on VOC07: 56.8 with ImageNet's labels, 44.5 for the
context encoder, 43.4 for random weights (Pathak et al., CVPR 2016, table 2).

Boxes come from selective search, found once and kept (see eval/networks/proposals.py), or with
`--proposals rpn` from a region proposal network that learns along, which makes it Faster R-CNN.
RoI pooling stands in the place of AlexNet's pool5: conv5 is the layer unless one is named.

    bench detect --data voc:VOCdevkit/VOC2007
    bench detect --proposals rpn --steps 2000 --short 192 --data scenes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from eval.finetuning import FineTunedOnWhole
from ssl_bench.data.dataset import Objects
from ssl_bench.errors import DataError, extra
from ssl_bench.evaluation.compact import compact_detections
from ssl_bench.evaluation.harness import EvaluationConfig, Subject
from ssl_bench.evaluation.metrics import Metric
from ssl_bench.evaluation.metrics.detection import (
    OVERLAP,
    box_overlaps,
    classes_to_find,
    coco_precision,
    detection_curve,
    detection_precision,
    judge_detections,
    resampled_detection,
)
from ssl_bench.evaluation.metrics.resampling import Intervals, Resampled, bootstrap_intervals
from ssl_bench.training.config import TrainConfig
from ssl_bench.training.schedule import Schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from eval.networks.fast_rcnn import Detector
    from eval.networks.learner import Truth
    from eval.networks.proposals import Proposals, Searched
    from eval.networks.regions import Target
    from ssl_bench.data.store.whole import WholeStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.training.pretext import Step

SHOWN = 6  # test images in the picture
RESCALED_BY = 64  # training images
Source = Literal["selective-search", "rpn"]


class FastRCNNConfig(EvaluationConfig, TrainConfig):
    """The settings of `detection/fast-rcnn@1`."""

    steps: int = Field(default=40_000, ge=1, description="updates")
    batch_size: int = Field(default=2, ge=1, description="images per update")
    lr: float = Field(default=1e-3, gt=0, le=1e30, description="SGD's learning rate at the start")
    schedule: Schedule = Field(default="drop", description="the learning rate's course")
    short: int = Field(default=600, ge=32, description="short side that images are resized to, px")
    longest: int = Field(
        default=1000, ge=32, description="largest long side, px; images above it are reduced"
    )
    rois: int = Field(default=64, ge=1, description="regions of each image that are learnt")
    proposals: Source = Field(
        default="selective-search",
        description="where boxes come from; rpn: a network that learns along (Faster R-CNN)",
    )
    head: int = Field(default=4096, ge=1, description="outputs of fc6 and of fc7")
    freeze: bool = Field(default=False, description="keep the encoder's weights as they are")
    rescale: bool = Field(
        default=False, description="set the layers' scales by training images before fine-tuning"
    )


class FastRCNN(FineTunedOnWhole):
    """Mean average precision of Fast R-CNN on test, after training on the boxes of train."""

    Config = FastRCNNConfig
    protocol = "detection/fast-rcnn@1"
    source = 'Girshick, "Fast R-CNN", ICCV 2015, arXiv 1504.08083, its CaffeNet'
    metrics = (Metric("map11"),)
    # One test image at a time: another image's size is no part of a detection.
    title, task, scored, rescaled_by = "detection", "detection", 1, RESCALED_BY

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """The last map but for pooling, whose place RoI pooling takes: conv5 of AlexNet."""
        return [name for name in encoder.maps if not name.startswith("pool")][-1:]

    def check(self, splits: Mapping[str, WholeStore]) -> None:
        """An object to learn and one to find; and the extra, before days of training."""
        with extra("detect"):
            import_module("pycocotools.cocoeval")
            if self.config.proposals == "selective-search":
                import_module("cv2")
        train, test = splits["train"], splits["test"]
        if not any(len(train.objects(i).boxes) for i in range(len(train))):
            raise DataError("the training images hold no object: detection needs some to learn")
        if all(test.objects(i).difficult.all() for i in range(len(test))):
            raise DataError("the test images hold no object to find that is not difficult")

    def prepared(
        self, subject: Subject, train: WholeStore, test: WholeStore, workers: int = 2
    ) -> tuple[Searched, Searched]:
        """With the boxes of selective search, which are found once."""
        from eval.networks.geometry import Geometry
        from eval.networks.proposals import Searched, open_proposals

        for layer in subject.layers:  # refused before anything is searched
            Geometry(deepcopy(subject.encoder), layer)
        if self.config.proposals == "rpn":
            return Searched(train, None), Searched(test, None)
        learnt, judged = (
            Searched(store, open_proposals(store, split, workers))
            for store, split in ((train, "train"), (test, "test"))
        )
        return learnt, judged

    def network(self, encoder: Encoder, layer: str, spec: EncoderSpec, train: Searched) -> Detector:
        """The trunk without its first layer, or all of it, is frozen; fc6 and fc7 are fresh."""
        from eval.networks.fast_rcnn import Detector, new_heads, new_rpn
        from eval.networks.geometry import Geometry
        from eval.networks.regions import BACKGROUND

        config, classes = self.config, len(train.store.index.classes)
        geometry, searched = Geometry(encoder, layer), config.proposals == "selective-search"
        lowest = BACKGROUND if searched else 0.0  # a learnt proposal may lie anywhere
        heads = new_heads(geometry, config.head, classes, config.rois, lowest, config.seed)
        rpn = None if searched else new_rpn(geometry.channels, config.short, config.seed)
        network = Detector(encoder, layer, heads, rpn)
        network.freeze(config.freeze)
        return network

    def rescale(
        self, network: Detector, train: Searched, which: np.ndarray, spec: EncoderSpec
    ) -> dict[str, float]:
        """By these images, each as one region."""
        from eval.networks.fast_rcnn import framed, rescale

        sizes = _pairs(train.store.sizes[which])
        straight, margin = [False] * len(which), network.pooling.margin
        images = framed(train.images(which), sizes, straight, spec.normalization, margin)
        return rescale(network, images, spec.arch)

    def truth(self, train: Searched) -> Truth:
        """Each image's size and objects, and the boxes to learn from."""
        store, found = train.store, train.proposals
        objects = [store.objects(i) for i in range(len(store))]
        known = {"sizes": _pairs(store.sizes), "objects": objects}
        return known if found is None else known | {"proposals": found}

    def loss(
        self, network: Detector, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> dict[str, Tensor]:
        """Of classes and boxes of sampled regions, on mirrored images.

        Difficult objects are learnt like the others, as in the published code.
        """
        import torch

        from eval.networks.fast_rcnn import framed, mirrored_boxes

        sizes, objects, device = truth["sizes"], truth["objects"], images.device
        turned = (step.random.uniform("mirror", 1)[:, 0] < 0.5).tolist()
        regions = [torch.tensor(boxes, device=device) for boxes in truth.get("proposals", [])]
        for i, (_, width) in enumerate(sizes):
            if turned[i]:
                objects[i] = objects[i].flipped(width)
                if regions:
                    regions[i] = mirrored_boxes(regions[i], width)

        def draw(stream: str, image: int, count: int) -> Tensor:
            one = replace(step.random, positions=step.random.positions[image : image + 1])
            return one.uniform(stream, count)[0]

        inputs = framed(images, sizes, turned, spec.normalization, network.pooling.margin)
        targets = [_target(each, device) for each in objects]
        return network(inputs, sizes, regions or None, targets, draw)

    def predict(
        self, network: Detector, images: Tensor, test: Searched, which: slice, spec: EncoderSpec
    ) -> np.ndarray:
        """float32 (1, 100, 6): class, score and box in stored pixels, best first; −1 is empty."""
        import torch

        from eval.networks.fast_rcnn import framed
        from eval.networks.regions import MOST

        (size,) = _pairs(test.store.sizes[which])
        image = framed(images, [size], [False], spec.normalization, network.pooling.margin)
        boxes = test.proposals
        regions = None if boxes is None else [torch.tensor(boxes[which.start], device=image.device)]
        (found,) = network(image, [size], regions)
        columns = [found["labels"][:, None] - 1, found["scores"][:, None], found["boxes"]]
        return padded([torch.cat(columns, 1).float().cpu().numpy()], MOST)

    def predictions(self, rows: np.ndarray, test: Searched) -> dict[str, np.ndarray]:
        return {"detections": rows, "objects": truth_of(test.store)}

    def described(
        self,
        network: Detector,
        predictions: Mapping[str, np.ndarray],
        train: Searched,
        test: Searched,
    ) -> dict[str, Any]:
        """`ap11` gives each class's value; `proposals` what regions of test there were to judge."""
        names, truth = train.store.index.classes, predictions["objects"]
        values = detection_precision(predictions["detections"], truth)
        found = {
            "classes": list(names),
            "ap11": {names[c]: round(values[f"ap11_{c}"], 2) for c in classes_to_find(truth)},
            "stride": network.pooling.stride,
            "margin": network.pooling.margin,
        }
        if test.proposals is not None:
            found["proposals"] = {
                "per_image": round(len(test.proposals.boxes) / len(test), 1),
                "recall": round(proposal_recall(test.proposals, truth), 2),
            }
        return found

    def draw(
        self,
        network: Detector,
        predictions: Mapping[str, np.ndarray],
        test: Searched,
        spec: EncoderSpec,
        folder: Path,
        title: str,
    ) -> None:
        """Boxes over some test images, and each class's precision by recall."""
        from ssl_bench.pictures.plots import box_grid, precision_recall_curves

        names, rows = test.store.index.classes, np.linspace(0, len(test) - 1, min(SHOWN, len(test)))
        found, truth, shown = *predictions.values(), rows.astype(int)
        pictures = []
        for i in shown.tolist():
            h, w = test.store.sizes[i].tolist()
            pictures.append(test.images(np.array([i]))[0, :, :h, :w].permute(1, 2, 0).numpy())
        place = folder / "detections.png"
        box_grid(pictures, found[shown], truth[shown], names, place, title)
        curves = {
            names[label]: detection_curve(judge_detections(found, truth, label))
            for label in classes_to_find(truth)
        }
        precision_recall_curves(curves, folder / "precision-recall.png", title)

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`map11`, `map`, `coco_map`, and `ap11_0`, `ap_0` … by class."""
        arrays = predictions["detections"], predictions["objects"]
        return detection_precision(*arrays) | {"coco_map": coco_precision(*arrays)}

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Of the resamples; see `bootstrap_intervals`."""
        return bootstrap_intervals(self.resampled(predictions))

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean average precisions over resamples of the test images."""
        return resampled_detection(predictions["detections"], predictions["objects"])

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """A box that was drawn blindly finds nothing."""
        return {"map11": 0.0, "map": 0.0, "coco_map": 0.0}

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Detections that count, with ranks for scores; see `compact_detections`."""
        objects = predictions["objects"]
        return {
            "detections": compact_detections(predictions["detections"], objects),
            "objects": objects,
        }


# ---- arrays


def _pairs(sizes: np.ndarray) -> list[tuple[int, int]]:
    """int64 (n, 2) -> heights and widths."""
    return [(h, w) for h, w in sizes.tolist()]


def _target(objects: Objects, device: torch.device) -> Target:
    """As torchvision takes them: label 0 is the background."""
    import torch

    return {
        "boxes": torch.from_numpy(objects.boxes).to(device),
        "labels": torch.from_numpy(objects.labels + 1).to(device),
    }


def padded(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Arrays (n, 6), n <= `length`, -> float32 (N, length, 6); class −1 in the empty places."""
    array = np.zeros((len(rows), length, 6), np.float32)
    array[..., 0] = -1
    for place, each in zip(array, rows, strict=True):
        place[: len(each)] = each
    return array


def truth_of(store: WholeStore) -> np.ndarray:
    """float32 (N, M, 6): class, difficult and box of each object; class −1 in the empty places."""
    rows = []
    for objects in map(store.objects, range(len(store))):
        columns = [objects.labels[:, None], objects.difficult[:, None], objects.boxes]
        rows.append(np.concatenate(columns, 1, dtype=np.float32))
    return padded(rows, max(1, *map(len, rows)))


def proposal_recall(proposals: Proposals, truth: np.ndarray) -> float:
    """Share of the objects that are not difficult which a proposal overlaps enough, percent."""
    covered = []
    for i, rows in enumerate(truth):
        wanted = rows[(rows[:, 0] >= 0) & (rows[:, 1] == 0)]
        if len(wanted):
            covered += (box_overlaps(wanted[:, 2:], proposals[i]).max(1) >= OVERLAP).tolist()
    return 100 * float(np.mean(covered))
