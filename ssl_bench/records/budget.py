"""What an encoder was pretrained on and for how long, in words: `200 steps of 64 on scenes`."""

from collections.abc import Mapping
from typing import Any

from ssl_bench.errors import counted
from ssl_bench.records.record import PretrainRecord


def budget(settings: Mapping[str, Any], kept: int | None = None) -> str:
    """The length of a training by its pretext's settings; empty for one that has no steps.

    `kept` is the step of an encoder that was kept on the way.
    """
    if "steps" not in settings:
        return ""
    batch = f" of {settings['batch_size']}" if "batch_size" in settings else ""
    return f"{f'{kept:,} of ' if kept else ''}{counted(settings['steps'], 'step')}{batch}"


def is_trained(run: PretrainRecord) -> bool:
    """Whether its images made the weights: they did not make those of the random row."""
    return run.details.training is not None or run.details.fit is not None


def described(run: PretrainRecord) -> str:
    """`autoencoder@3f9a2c1b5d7e: 200 steps of 64 on scenes, alexnet 96 px`."""
    settings = run.identity.config
    length = budget(settings, run.identity.kept)
    course = f"{length} on {run.data}".lstrip() if is_trained(run) else "untrained"
    width = settings.get("width", 1)
    network = f"{settings.get('arch', '')} {settings.get('image_size', '')} px"
    network += f", width {width:g}" if width != 1 else ""
    network += ", BN" if settings.get("norm") == "batch" else ""
    network += {"small": ", small stem", "sobel": ", Sobel"}.get(settings.get("stem", ""), "")
    network += f", from {settings['start']}" if "start" in settings else ""
    return f"{run.reference}: {course}, {network}"
