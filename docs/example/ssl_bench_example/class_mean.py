"""Class means: the class whose mean training feature is nearest (Mensink et al., PAMI 2013).

bench class-mean --layers all --data folder:photos
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from ssl_bench.data.store.squares import ImageStore
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.harness import Outcome, Probe, ProbeConfig
from ssl_bench.evaluation.metrics import TOP1
from ssl_bench.evaluation.metrics.precision import top1


class ClassMean(Probe):
    """Top-1 of the nearest class mean by Euclidean distance, on features of length 1."""

    Config = ProbeConfig  # seed and dimensions: nothing is chosen, so there is nothing to set
    protocol = "class-mean/mensink13@1"
    source = 'Mensink et al., "Distance-Based Image Classification", PAMI 2013, section 3.3'
    metrics = (TOP1,)

    def check(self, splits: Mapping[str, ImageStore]) -> None:
        """UsageError for a class of the test images that has no mean."""
        train, test = splits["train"], splits["test"]
        absent = np.setdiff1d(test.labels, train.labels)
        if len(absent):
            raise UsageError(f"no training image is of class {train.index.classes[absent[0]]}")

    def probe(self, layer: str, splits: Mapping[str, Features]) -> Outcome:
        """One pass over the rows, block by block: memory does not grow with the images."""
        train, test = splits["train"], splits["test"]
        labels = torch.from_numpy(train.labels).to(train.rows.device)
        means = torch.zeros(int(labels.max()) + 1, train.rows.shape[1], device=labels.device)
        for span, block in train.rows.blocks():
            means.index_add_(0, labels[span], F.normalize(block))
        counts = labels.bincount(minlength=len(means))
        present = counts.nonzero()[:, 0]  # classes of the set that train may lack
        means = means[present] / counts[present, None]  # (C, D)
        nearest = [torch.cdist(F.normalize(b), means).argmin(1) for _, b in test.rows.blocks()]
        predicted = present[torch.cat(nearest)].cpu().numpy()
        return Outcome({"label": test.labels, "predicted": predicted})

    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """`top1` in percent; its interval, Wilson's, is the contract's."""
        return {"top1": top1(predictions["label"], predictions["predicted"])}
