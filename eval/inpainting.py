"""Inpainting, `inpainting/pathak16@1`: how near the content of a hole comes to what was there.

Pathak et al., CVPR 2016, section 5.1 and table 1: mean L1, mean L2 and PSNR of held-out images
whose centre is missing. Published on Paris StreetView: 10.33 %, 2.35 % and 17.59 dB for the joint
loss, 19.92 %, 6.92 % and 12.79 dB for nearest neighbours by HOG. SSIM stands beside them.

A network that fills holes gives a row; so does any encoder, through the nearest training image by
its features; and so do fills that need neither (eval/fills.py). The hole is what is hidden, 50×50
of 128×128 px: the published network, too, is shown a band of 7 px of the 64×64 that it predicts.

    bench inpainting --encoder inpainting --data folder:photos
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field, model_validator

from ssl_bench.errors import UsageError, extra
from ssl_bench.evaluation.harness import Evaluation, EvaluationConfig, Outcome, Point, Subject
from ssl_bench.evaluation.intervals import mean_interval
from ssl_bench.evaluation.metrics import Metric
from ssl_bench.evaluation.metrics.image_quality import hole_quality
from ssl_bench.evaluation.metrics.resampling import Intervals
from ssl_bench.progress import progress
from ssl_bench.runtime import Runtime, best_device
from ssl_bench.training.config import MaskKind

if TYPE_CHECKING:
    from torch import Tensor

    from eval.fills import HoleFill
    from ssl_bench.data.store.squares import ImageStore
    from ssl_bench.training.pretext import Inpaints, Pretext

BATCH = 64
SHOWN = 8  # test images in the picture
STUDENT = "over the test images, Student's"
L1 = Metric("l1", digits=2, lower=True, interval=STUDENT)
L2 = Metric("l2", digits=2, lower=True, interval=STUDENT)
PSNR = Metric("psnr", "dB", digits=2, interval=STUDENT)
SSIM = Metric("ssim", "−1 to 1", digits=3, interval=STUDENT)
NETWORK, NEAREST = "network", "nearest "  # keys of points; the latter with a layer behind it
MEAN, TELEA, HOG = "mean colour", "Telea", "nearest (HOG)"  # keys and rows


class Pathak16Config(EvaluationConfig):
    """The settings of `inpainting/pathak16@1`."""

    mask: MaskKind = Field(default="central", description="what is hidden")
    hole: int = Field(
        default=50, ge=1, le=126,
        description="side of the central hole in 128ths of the image's",
    )  # fmt: skip

    @model_validator(mode="after")
    def _hole_of_the_central_mask(self) -> Pathak16Config:
        if self.mask != "central" and "hole" in self.model_fields_set and self.hole != 50:
            raise ValueError(f"--hole is for the central mask; {self.mask} masks are drawn")
        return self


class Pathak16(Evaluation):
    """Errors over the holes of the test images."""

    Config = Pathak16Config
    protocol = "inpainting/pathak16@1"
    source = 'Pathak et al., "Context Encoders", CVPR 2016, section 5.1'
    metrics = (PSNR, L1, L2, SSIM)

    def shown(self, predictions: Mapping[str, np.ndarray]) -> Sequence[Metric]:
        """In the order of the paper's table."""
        return (L1, L2, PSNR, SSIM)

    def points(self, subject: Subject, name: str) -> Sequence[Point]:
        """The fills without an encoder, nearest neighbours by each layer, the network's own.

        Neighbours are for the central hole: of other masks every image has another one.
        """
        from ssl_bench.training.pretext import Inpaints

        central = self.config.mask == "central"
        free = [MEAN, TELEA, *([HOG] if central else [])]
        points = [Point(key, key, free=True) for key in free]
        if central:
            points += [
                Point(NEAREST + layer, f"nearest ({layer} of {name})", layer=layer)
                for layer in subject.layers
            ]
        pretext = subject.pretext() if subject.pretext else None
        if isinstance(pretext, Inpaints):
            self._check_reach(pretext, name, subject.spec.image_size)
            points.append(Point(NETWORK, name))
        return points

    def _check_reach(self, pretext: Inpaints, name: str, size: int) -> None:
        needed = self._side(size) if self.config.mask == "central" else size
        if needed > int(pretext.reach * size):
            raise UsageError(
                f"{name} was trained with --mask central and fills the central "
                f"{int(pretext.reach * size)} of {size} px only: ask for --mask central and no "
                "larger --hole"
            )

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """That what fills and what measures is installed."""
        with extra("inpaint"):
            import_module("cv2")
            import_module("skimage.metrics")

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The means over the images: `l1`, `l2` in percent, `psnr` in dB, `ssim`."""
        return {name: mean for name, (mean, _) in _means(predictions).items()}

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """Student's, over the images; none of a single image."""
        means = _means(predictions)
        return {n: (m - half, m + half) for n, (m, half) in means.items() if half == half}

    def evaluate(
        self,
        subject: Subject,
        splits: Mapping[str, ImageStore],
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Each point is a way to fill the same holes."""
        train, test = splits["train"], splits["test"]
        size = subject.spec.image_size
        for key in subject.layers:
            fill, about = self._fill(key, subject, train, test, runtime)
            title = subject.title(" ".join([self.protocol, *self.config.deviations()]), key)
            predictions = self._measure(fill, test, size, folders[key] / "fills.png", title)
            yield key, Outcome(predictions, {"split": "none: nothing is chosen", **about})

    def _fill(
        self, key: str, subject: Subject, train: ImageStore, test: ImageStore, runtime: Runtime
    ) -> tuple[HoleFill, dict[str, str]]:
        """How the point's holes are filled, and what is to be said of it."""
        from eval import fills
        from ssl_bench.training.masks import square

        if key == MEAN:
            return fills.mean_colour(train), {}
        if key == TELEA:
            return fills.telea, {}
        if key == NETWORK:
            assert subject.pretext is not None
            return filled_by(subject.pretext()), {}
        size = subject.spec.image_size
        hole = square(1, size, self._side(size))
        found, searched = (fills.Hidden(store, size, hole, train) for store in (test, train))
        on_disk = 4 * 9600 * (len(train) + len(test)) > runtime.feature_memory()
        if key == HOG:
            rows = [
                fills.hog_rows(images, f"HOG of {name}", on_disk=on_disk)
                for images, name in ((found, "test"), (searched, "train"))
            ]
        else:
            layer = key.removeprefix(NEAREST)
            rows = [
                fills.feature_rows(
                    subject.encoder, subject.spec, layer, images, f"{layer} of {name}",
                    on_disk=on_disk,
                )
                for images, name in ((found, "test"), (searched, "train"))
            ]  # fmt: skip
        places = fills.places_of_nearest(rows[0], rows[1])[:, 0]
        compared = f"cosine of {rows[0].shape[1]} numbers"
        return fills.pasted(train, size, places), {"compared": compared}

    def _side(self, size: int) -> int:
        return round(self.config.hole * size / 128)

    def holes(self, which: np.ndarray, size: int) -> Tensor:
        """The holes of these test images, float (B, 1, S, S): a function of place and seed."""
        import torch

        from ssl_bench.counter import Randomness
        from ssl_bench.training.masks import draw_masks, square

        if self.config.mask == "central":
            return square(len(which), size, self._side(size))
        random = Randomness(self.config.seed, 0, torch.from_numpy(which))
        return draw_masks(self.config.mask, size, random)

    def _measure(
        self, fill: HoleFill, test: ImageStore, size: int, path: Path, title: str
    ) -> dict[str, np.ndarray]:
        """Each test image's errors, float32 (N,), and a picture of some."""
        import torch

        from ssl_bench.pictures.plots import picture_grid
        from ssl_bench.training.augment import center_crop

        shown = set(np.linspace(0, len(test) - 1, min(SHOWN, len(test))).astype(int).tolist())
        found: dict[str, list[np.ndarray]] = {m.name: [] for m in self.metrics}
        rows: dict[str, list[Tensor]] = {"holed": [], "filled": [], "truth": []}
        starts = range(0, len(test), BATCH)
        for start in progress(starts, title, len(starts)):
            which = np.arange(start, min(start + BATCH, len(test)))
            images, holes = center_crop(test.images(which), size), self.holes(which, size)
            filled, truth = fill(which, images, holes), images.float() / 255
            quality = hole_quality(_last(truth), _last(filled), holes[:, 0].bool().numpy())
            for name, values in quality.items():
                found[name].append(values.astype(np.float32))
            for i in sorted(shown & set(which.tolist())):
                k = i - start
                rows["holed"].append(truth[k] * (1 - holes[k]) + 0.5 * holes[k])
                rows["filled"].append(filled[k])
                rows["truth"].append(truth[k])
        picture_grid({n: torch.stack(pictures) for n, pictures in rows.items()}, path, title)
        return {name: np.concatenate(values) for name, values in found.items()}


def _means(predictions: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Each metric's mean over the images, and the half-width of its interval."""
    names = (metric.name for metric in (L1, L2, PSNR, SSIM))
    return {n: mean_interval(predictions[n].astype(np.float64).tolist()) for n in names}


def filled_by(pretext: Pretext) -> HoleFill:
    """The network's own fill, in 32 bit, on the best device."""
    from ssl_bench.training.pretext import Inpaints

    assert isinstance(pretext, Inpaints)
    network: Inpaints = pretext
    device = best_device()
    pretext.eval().to(device)
    return lambda _which, images, holes: network.fill(images.to(device), holes.to(device)).cpu()


def _last(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) -> (B, H, W, 3)."""
    return images.permute(0, 2, 3, 1).contiguous().numpy()
