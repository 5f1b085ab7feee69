"""What a finished pretext does to a few of its training images."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.store.concat import open_joined
from ssl_bench.errors import counted
from ssl_bench.pictures import plots
from ssl_bench.progress import say
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import folder_of
from ssl_bench.training.build import open_pretext
from ssl_bench.training.pretext import Previewable

SHOWN = 8  # images in a preview


def draw_preview(
    record: PretrainRecord, workspace: Path, data: str | Sequence[str],
    *, skip_bad_images: bool = False,
) -> None:  # fmt: skip
    """Draw `preview.png` in the run's folder, from its weights and images of `data`."""
    folder = folder_of(workspace, record)
    pretext = open_pretext(record, folder)
    if not isinstance(pretext, Previewable):
        say(f"{record.method} has nothing to preview")
        return
    size = pretext.config.image_size
    store = open_joined(catalogue.datasets(data), size, skip_bad_images=skip_bad_images)
    chosen = torch.linspace(0, len(store) - 1, min(SHOWN, len(store))).long()
    images = store.images(chosen.numpy())
    # The run's seed at step 0: what is drawn here is what the first step drew.
    random = Randomness(pretext.config.seed, 0, torch.arange(len(chosen)))
    with torch.no_grad():
        rows = pretext.preview(images, random)
    path = folder / "preview.png"
    steps = record.identity.config["steps"]
    plots.picture_grid(rows, path, f"{record.method}, {record.data}, {counted(steps, 'step')}")
    say(f"preview: {path}")
