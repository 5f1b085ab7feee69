"""Records with given predictions, in a workspace."""

import time

import numpy as np

from ssl_bench import catalogue
from ssl_bench.records.record import (
    EncoderIdentity,
    EvaluationDetails,
    EvaluationIdentity,
    EvaluationRecord,
)
from ssl_bench.records.workspace import Run, write_predictions


def stored(workspace, method, predictions, *, protocol="linear/logreg@1", data="d", **settings):
    """A record in a workspace, with these predictions and what its harness says of them."""
    entry = next(e for e in catalogue.names("eval") if catalogue.evaluation(e).protocol == protocol)
    harness = catalogue.evaluation(entry)
    harness = harness(harness.Config(**settings))
    images = len(next(iter(predictions.values())))
    identity = EvaluationIdentity(
        kind="evaluation",
        protocol=protocol,
        layer="pool5",
        config=harness.config.model_dump(mode="json"),
        encoder=EncoderIdentity(run=method, weights="w", spec={}),
        data={"train": data, "test": data},
    )
    details = EvaluationDetails(
        metric=harness.metric,
        shown=list(harness.shown),
        units=dict(harness.units),
        digits=dict(harness.digits),
        protocol=" ".join([protocol, *harness.config.deviations()]),
        pretraining={"seed": 0},
        pretraining_data="scenes",
        pretraining_digest="p",
        test_images=images,
        skipped_images=[],
    )
    run = Run(workspace, EvaluationRecord, f"{protocol}-{method}", identity)
    with run.working() as folder:
        write_predictions(folder / "predictions.npz", predictions)
    metrics = harness.score(predictions)
    return run.finish(
        method=method, data="scenes", metrics=metrics, details=details, started=time.monotonic(),
        device="cpu",
    )  # fmt: skip


def changed(record, *, protocol=None, layer=None, details=None, **own):
    """The same record with another protocol, layer, details or fields of its own."""
    renamed = {"protocol": protocol, "layer": layer}
    identity = {name: value for name, value in renamed.items() if value is not None}
    more = {**({"protocol": protocol} if protocol else {}), **(details or {})}
    return record.model_copy(
        update={
            "identity": record.identity.model_copy(update=identity),
            "details": record.details.model_copy(update=more),
            **own,
        }
    )


def answers(*stretches):
    """Predictions of class 1 where right, else 0: 40 right, then 10 wrong, then …"""
    hits = [(i + 1) % 2 for i, count in enumerate(stretches) for _ in range(count)]
    return {"label": np.ones(len(hits), np.int64), "predicted": np.array(hits, np.int64)}


def fills(l1, psnr):
    noise = np.random.default_rng(l1).normal(0, 0.1, (2, 30))
    rest = {"l2": np.ones(30), "ssim": np.ones(30)}
    return {"l1": l1 + noise[0], "psnr": psnr + noise[1], **rest}


# Of 100 images 12 tell the two apart, 10 to 2: p = 2 · (1 + 12 + 66) / 2¹² = 0.0386.
MORE, LESS = answers(60, 40), answers(50, 10, 2, 38)
