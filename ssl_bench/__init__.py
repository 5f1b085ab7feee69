"""ssl-bench: a benchmark for self-supervised visual features.

import ssl_bench

frame = ssl_bench.load_records("runs")  # a pandas DataFrame, one line per metric
encoder = ssl_bench.load_encoder("context-encoder")  # with its transform; encode() gives features

The contracts for authors are `Pretext`, `Evaluation`, `Probe` and `Dataset`; they and the functions
above are imported when they are first asked for, so that `bench --help` does not load torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from ssl_bench.data.dataset import Dataset
    from ssl_bench.evaluation.harness import Evaluation, Probe
    from ssl_bench.evaluation.loaded import load_encoder
    from ssl_bench.training.pretext import Pretext

__all__ = ["Dataset", "Evaluation", "Pretext", "Probe", "load_encoder", "load_records"]
_HOMES = {
    "Dataset": "ssl_bench.data.dataset",
    "Evaluation": "ssl_bench.evaluation.harness",
    "Probe": "ssl_bench.evaluation.harness",
    "Pretext": "ssl_bench.training.pretext",
    "load_encoder": "ssl_bench.evaluation.loaded",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssl_bench' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def load_records(path: str | Path) -> "pd.DataFrame":
    """All evaluations in a workspace, or in the workspaces below a folder: a line per metric.

    Columns: key, method, protocol (with its deviations), layer, data, metric, value, low and high
    (its 95 % interval over the test images, NaN where there is none), pretraining_seed,
    pretraining_step (at which the encoder was kept, or the last), seed, encoder (the key of its
    run), weights (their digest), control, test_images, finished (UTC), workspace. Raises UsageError
    if there is no record, DataError for a damaged one.
    """
    from ssl_bench.records.dataframe import frame_of

    return frame_of(Path(path))
