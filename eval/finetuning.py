"""The base of the protocols that train on the images: an encoder with fresh layers behind it.

A protocol's own file says what is its own, top to bottom as in its paper: settings, `network`,
`loss`, `predict`, `score`. What they share is here: one training per layer from a copy of the
encoder, the optimiser's groups, freezing that is checked, rescaling, the pass over the test images,
and what a record says of how it went. docs/extend.md has the shortest one there can be.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eval.splits import some_images
from ssl_bench.data.dataset import Dataset, SplitName, Task
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.harness import Evaluation, Outcome, Point, Subject
from ssl_bench.progress import progress
from ssl_bench.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from eval.networks.learner import Learner, Loss, Truth
    from ssl_bench.data.store.whole import WholeStore
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.training.loop import Report
    from ssl_bench.training.pretext import Step


def course(report: Report) -> dict[str, Any]:
    """What a record's selection says of a training from which nothing was chosen."""
    parts = report.last.keys() - {"loss"}
    losses = {"final_losses": dict(report.last)} if parts else {"final_loss": report.last["loss"]}
    return {
        "split": "none: nothing is chosen",
        **losses,
        "images_per_second": round(report.images_per_second, 2),
        "data_wait": round(report.data_wait, 4),
    }


# ---- the base
class FineTuned(Evaluation):
    """An evaluation that trains an encoder and fresh layers; the last step counts.

    Its `Config` is an EvaluationConfig and a TrainConfig, which the loop runs by; `freeze` and
    `rescale` in it are looked after here.
    """

    title: ClassVar[str] = "fine-tuning"  # of the progress line
    scored: ClassVar[int] = 128  # test images per forward pass
    clip: ClassVar[float | None] = None  # length that the gradient is shortened to
    rescaled_by: ClassVar[int] = 64  # training images, most

    def points(self, subject: Subject, name: str) -> Sequence[Point]:
        """As usual; UsageError for an encoder without gradients."""
        if not subject.encoder.trainable:
            raise UsageError(f"{name} cannot be trained: it is for evaluations of frozen features")
        return super().points(subject, name)

    @abstractmethod
    def network(self, encoder: Encoder, layer: str, spec: EncoderSpec, train: Any) -> nn.Module:
        """`encoder`, a copy that may change, up to `layer`, and fresh layers drawn by the seed.

        The network has it as `encoder`. What is frozen takes no gradient, and stays in eval mode
        when the loop calls `train()`.
        """

    @abstractmethod
    def loss(
        self, network: Any, images: Tensor, truth: Truth, step: Step, spec: EncoderSpec
    ) -> Loss:
        """Of a batch of stored images, uint8 (B, 3, H, W), and its rows of `truth`.

        Call `network` as a whole, so that its gradients are averaged over the devices.
        """

    @abstractmethod
    def predict(
        self, network: Any, images: Tensor, test: Any, which: slice, spec: EncoderSpec
    ) -> np.ndarray:
        """A row for each of the test images `which`, whose pixels are on the network's device.

        The network is in eval mode and in 32 bit. Nothing may depend on what is true of them.
        """

    @abstractmethod
    def predictions(self, rows: np.ndarray, test: Any) -> Mapping[str, np.ndarray]:
        """What `score` needs, of the rows of all test images."""

    def prepared(
        self, subject: Subject, train: Any, test: Any, workers: int = 2
    ) -> tuple[Any, Any]:
        """Both stores as `truth`, the loop and `predict` see them; once for all layers.

        What is slow to make of them may be made by `workers` processes.
        """
        return train, test

    def chosen(self, train: Any) -> np.ndarray:
        """Indices of the images that are learnt, ascending: all of them."""
        return np.arange(len(train))

    def truth(self, train: Any) -> Truth:
        """What `loss` needs to know of each training image."""
        import torch

        return {"labels": torch.from_numpy(train.annotations)}

    def optimizer(self, network: nn.Module) -> Optimizer:
        """SGD as Caffe's network files have it."""
        import torch

        from eval.networks.learner import caffe_groups

        return torch.optim.SGD(caffe_groups(network, self.config.lr), momentum=0.9, fused=True)

    @property
    def frozen(self) -> bool:
        """Whether the encoder must be the same afterwards, statistics of its batches included."""
        return getattr(self.config, "freeze", False)

    def rescale(
        self, network: Any, train: Any, which: np.ndarray, spec: EncoderSpec
    ) -> dict[str, float]:
        """Set the network's scales by these training images; returns what was done."""
        raise NotImplementedError  # for those whose Config has `rescale`

    def described(
        self, network: Any, predictions: Mapping[str, np.ndarray], train: Any, test: Any
    ) -> dict[str, Any]:
        """More for the record's selection."""
        return {"training_images": len(self.chosen(train))}

    def draw(
        self,
        network: Any,
        predictions: Mapping[str, np.ndarray],
        test: Any,
        spec: EncoderSpec,
        folder: Path,
        title: str,
    ) -> None:
        """Pictures for the run's folder."""

    def evaluate(
        self,
        subject: Subject,
        splits: Mapping[str, Any],
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Each layer is a training of its own, from the subject's weights."""
        train, test = splits["train"], splits["test"]
        stores = self.prepared(subject, train, test, runtime.workers)
        for layer in subject.layers:
            yield layer, self._tuned(subject, layer, *stores, runtime, folders[layer])

    def _tuned(
        self, subject: Subject, layer: str, train: Any, test: Any, runtime: Runtime, folder: Path
    ) -> Outcome:
        from ssl_bench.encoders.weights import weights_digest
        from ssl_bench.training.loop import train as run_loop

        config, spec, chosen = self.config, subject.spec, self.chosen(train)
        network: Any = self.network(deepcopy(subject.encoder), layer, spec, train)
        scales = {}
        if getattr(config, "rescale", False):
            some = chosen[some_images(len(chosen), self.rescaled_by, config.seed)]
            scales = self.rescale(network, train, some, spec)
        before = weights_digest(network.encoder.state_dict())
        task = self.learner(network, train, spec)
        report = run_loop(
            task, train, config, config.seed, runtime, folder, subset=chosen, title=self.title
        )
        if self.frozen and weights_digest(network.encoder.state_dict()) != before:
            raise DataError("the encoder's weights changed during a frozen evaluation")
        predictions = self.predictions(self.rows(network, test, spec), test)
        title = subject.title(" ".join([self.protocol, *config.deviations()]), layer)
        self.draw(network, predictions, test, spec, folder, title)
        selection = course(report) | self.described(network, predictions, train, test)
        return Outcome(predictions, selection | ({"rescaled": scales} if scales else {}))

    def learner(self, network: nn.Module, train: Any, spec: EncoderSpec) -> Learner:
        """What the loop trains."""
        from eval.networks.learner import Learner

        loss = partial(self.loss, spec=spec)
        return Learner(network, self.optimizer, loss, self.truth(train), self.clip)

    def rows(self, network: nn.Module, test: Any, spec: EncoderSpec) -> np.ndarray:
        """`predict` of all test images, in order."""
        import torch

        network.eval()
        device, rows = next(network.parameters()).device, []
        starts = range(0, len(test), self.scored)
        for start in progress(starts, "test images", len(starts)):
            which = slice(start, min(start + self.scored, len(test)))
            images = test.images(which).to(device)
            with torch.no_grad():
                rows.append(self.predict(network, images, test, which, spec))
        return np.concatenate(rows)


class FineTunedOnWhole(FineTuned):
    """On images of any size, packed whole, with the truth of a `task` beside them."""

    task: ClassVar[Task]

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """The last map: fc6 looks at places, of which `pooled` has none."""
        return encoder.maps[-1:]

    def sides(self, spec: EncoderSpec) -> tuple[int | None, int]:
        """Short side that images are resized to, px, None: as it is, and the longest allowed."""
        short, longest = self.config.short, self.config.longest
        if short > longest:
            raise UsageError(f"--short {short} is more than --longest {longest}: raise the latter")
        return short or None, longest

    def open(
        self,
        dataset: Dataset,
        split: SplitName,
        spec: EncoderSpec,
        *,
        skip_bad_images: bool = False,
        workers: int = 2,
    ) -> WholeStore:
        """Whole images, reduced to `sides`."""
        from ssl_bench.data.store.whole import open_whole

        return open_whole(
            dataset, split, self.task, *self.sides(spec),
            skip_bad_images=skip_bad_images, workers=workers,
        )  # fmt: skip
