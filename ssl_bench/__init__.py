"""ssl-bench: a benchmark for self-supervised visual features.

import ssl_bench

frame = ssl_bench.load_records("runs")  # a pandas DataFrame, one line per metric
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load_records(path: str | Path) -> "pd.DataFrame":
    """All evaluations in a workspace, or in the workspaces below a folder: a line per metric.

    Columns: key, method, protocol (with its deviations), layer, data, metric, value, low and high
    (its 95 % interval over the test images, NaN where there is none), pretraining_seed, seed,
    encoder (the key of its run), control, test_images, finished (UTC), workspace. Raises UsageError
    if there is no record, DataError for a damaged one.
    """
    from ssl_bench.frames import frame_of

    return frame_of(Path(path))
