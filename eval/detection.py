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

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from eval.networks.fast_rcnn import Detector, Learner, framed, new_heads, new_rpn, rescale
from eval.networks.geometry import Geometry
from eval.networks.proposals import Proposals, open_proposals
from eval.networks.regions import BACKGROUND, MOST
from eval.splits import some_images
from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.whole import WholeStore, open_whole
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.compact import compact_detections
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Subject
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
from ssl_bench.evaluation.metrics.resampling import Resampled
from ssl_bench.pictures.plots import box_grid, precision_recall_curves
from ssl_bench.progress import progress
from ssl_bench.runtime import Runtime, best_device
from ssl_bench.training.loop import Report
from ssl_bench.training.loop import train as run_loop
from ssl_bench.training.pretext import Schedule, TrainConfig

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


class FastRCNN(Evaluation):
    """Mean average precision of Fast R-CNN on test, after training on the boxes of train."""

    Config = FastRCNNConfig
    protocol = "detection/fast-rcnn@1"
    source = 'Girshick, "Fast R-CNN", ICCV 2015, arXiv 1504.08083, its CaffeNet'
    metric = "map11"
    interval = "over the test images, bootstrap"

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """The last but for pooling, whose place RoI pooling takes: conv5 of AlexNet."""
        return [name for name in encoder.layers if not name.startswith("pool")][-1:]

    def open(
        self,
        dataset: Dataset,
        split: SplitName,
        spec: EncoderSpec,
        *,
        skip_bad_images: bool = False,
        workers: int = 2,
    ) -> WholeStore:
        """Whole images with their objects."""
        short, longest = self.config.short, self.config.longest
        if short > longest:
            raise UsageError(f"--short {short} is more than --longest {longest}: raise the latter")
        return open_whole(
            dataset, split, "detection", short, longest,
            skip_bad_images=skip_bad_images, workers=workers,
        )  # fmt: skip

    def check(self, train: WholeStore, test: WholeStore) -> None:
        """An object to learn and one to find."""
        if not any(len(train.objects(i).boxes) for i in range(len(train))):
            raise DataError("the training images hold no object: detection needs some to learn")
        if all(test.objects(i).difficult.all() for i in range(len(test))):
            raise DataError("the test images hold no object to find that is not difficult")

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`map11`, `map` with intervals, `coco_map`, and `ap11_0`, `ap_0` … by class."""
        arrays = predictions["detections"], predictions["objects"]
        return detection_precision(*arrays) | {"coco_map": coco_precision(*arrays)}

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """Mean average precisions over resamples of the test images."""
        return resampled_detection(predictions["detections"], predictions["objects"])

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Detections that count, with ranks for scores; see `compact_detections`."""
        objects = predictions["objects"]
        return {
            "detections": compact_detections(predictions["detections"], objects),
            "objects": objects,
        }

    def evaluate(
        self,
        subject: Subject,
        train: WholeStore,
        test: WholeStore,
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Each layer is a training of its own, from the subject's weights."""
        for layer in subject.layers:  # refused before anything is searched
            Geometry(deepcopy(subject.encoder), layer)
        boxes: list[Proposals | None] = [None, None]
        if self.config.proposals == "selective-search":
            boxes = [open_proposals(train, "train"), open_proposals(test, "test")]
        for layer in subject.layers:
            yield layer, self._detect(subject, layer, (train, test), boxes, runtime, folders[layer])

    def _detect(
        self,
        subject: Subject,
        layer: str,
        stores: tuple[WholeStore, WholeStore],
        boxes: Sequence[Proposals | None],
        runtime: Runtime,
        folder: Path,
    ) -> Outcome:
        (train, test), config, normalization = stores, self.config, subject.spec.normalization
        network = self._network(subject, layer, len(train.index.classes))
        scales = self._rescale(network, subject.spec, train) if config.rescale else {}
        before = weights_digest(network.encoder.state_dict())
        learner = Learner(network, train, boxes[0], normalization, config.lr)
        report = run_loop(learner, train, config, config.seed, runtime, folder, title="detection")
        if config.freeze and weights_digest(network.encoder.cpu().state_dict()) != before:
            raise DataError("the encoder's weights changed during a frozen evaluation")
        found, truth = detect(network, test, boxes[1], normalization), truth_of(test)
        title = f"{' '.join([self.protocol, *config.deviations()])}, {layer}"
        _draw(test, found, truth, folder, title)
        selection = _selection(network, train.index.classes, boxes, found, truth, report)
        if scales:
            selection["rescaled"] = scales
        return Outcome({"detections": found, "objects": truth}, selection)

    def _network(self, subject: Subject, layer: str, classes: int) -> Detector:
        config, encoder = self.config, deepcopy(subject.encoder)
        geometry, searched = Geometry(encoder, layer), config.proposals == "selective-search"
        lowest = BACKGROUND if searched else 0.0  # a learnt proposal may lie anywhere
        heads = new_heads(geometry, config.head, classes, config.rois, lowest, config.seed)
        rpn = None if searched else new_rpn(geometry.channels, config.short, config.seed)
        network = Detector(encoder, layer, heads, rpn)
        network.freeze(config.freeze)
        return network

    def _rescale(self, network: Detector, spec: EncoderSpec, train: WholeStore) -> dict[str, float]:
        """Set the network's scales by some training images; returns what was done."""
        which = some_images(len(train), RESCALED_BY, self.config.seed)
        sizes = [(h, w) for h, w in train.sizes[which].tolist()]
        straight, margin = [False] * len(which), network.pooling.margin
        images = framed(train.images(which), sizes, straight, spec.normalization, margin)
        return rescale(network, images, spec.arch)


@torch.no_grad()
def detect(
    network: Detector, test: WholeStore, proposals: Proposals | None, normalization: Normalization
) -> np.ndarray:
    """float32 (N, 100, 6): class, score and box in stored pixels, best first; class −1 is empty.

    One image at a time, in 32 bit: another image's size is no part of the result.
    """
    device = best_device()
    network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = []
    for i in progress(range(len(test)), "test images", len(test)):
        size = tuple(test.sizes[i].tolist())
        pixels = test.images(np.array([i])).to(device)
        image = framed(pixels, [size], [False], normalization, network.pooling.margin)
        regions = None if proposals is None else [torch.tensor(proposals[i], device=device)]
        (found,) = network(image, [size], regions)
        columns = [found["labels"][:, None] - 1, found["scores"][:, None], found["boxes"]]
        rows.append(torch.cat(columns, 1).float().cpu().numpy())
    return padded(rows, MOST)


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


# ---- what is shown and recorded


def _draw(test: WholeStore, found: np.ndarray, truth: np.ndarray, folder: Path, title: str) -> None:
    """Boxes over some test images, and each class's precision by recall."""
    names, shown = test.index.classes, np.linspace(0, len(test) - 1, min(SHOWN, len(test)))
    pictures = []
    for i in shown.astype(int).tolist():
        h, w = test.sizes[i].tolist()
        pictures.append(test.images(np.array([i]))[0, :, :h, :w].permute(1, 2, 0).numpy())
    rows = shown.astype(int)
    box_grid(pictures, found[rows], truth[rows], names, folder / "detections.png", title)
    curves = {
        names[label]: detection_curve(judge_detections(found, truth, label))
        for label in classes_to_find(truth)
    }
    precision_recall_curves(curves, folder / "precision-recall.png", title)


def _selection(
    network: Detector,
    names: Sequence[str],
    boxes: Sequence[Proposals | None],
    found: np.ndarray,
    truth: np.ndarray,
    report: Report,
) -> dict[str, Any]:
    """`ap11` gives each class's value; `proposals` what regions of test there were to judge."""
    values = detection_precision(found, truth)
    selection = {
        "split": "none: nothing is chosen",
        "classes": list(names),
        "ap11": {names[c]: round(values[f"ap11_{c}"], 2) for c in classes_to_find(truth)},
        "final_losses": dict(report.last),
        "stride": network.pooling.stride,
        "margin": network.pooling.margin,
        "images_per_second": round(report.images_per_second, 2),
        "data_wait": round(report.data_wait, 4),
    }
    if boxes[1] is not None:
        selection["proposals"] = {
            "per_image": round(len(boxes[1].boxes) / len(boxes[1]), 1),
            "recall": round(proposal_recall(boxes[1], truth), 2),
        }
    return selection


def proposal_recall(proposals: Proposals, truth: np.ndarray) -> float:
    """Share of the objects that are not difficult which a proposal overlaps enough, percent."""
    covered = []
    for i, rows in enumerate(truth):
        wanted = rows[(rows[:, 0] >= 0) & (rows[:, 1] == 0)]
        if len(wanted):
            covered += (box_overlaps(wanted[:, 2:], proposals[i]).max(1) >= OVERLAP).tolist()
    return 100 * float(np.mean(covered))
