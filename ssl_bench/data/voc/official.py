"""The official sets by their names, `voc07` and `voc12`, where `bench data get` puts them.

They lie in `$SSL_BENCH_DATA`, else `~/.cache/ssl-bench-data`, as VOCdevkit/VOC2007 and
VOCdevkit/VOC2012. A folder whose lists are not of the official sizes is not taken for them.
"""

import os
from pathlib import Path

from ssl_bench.data.voc.dataset import OFFICIAL, VOCDataset
from ssl_bench.errors import DataError, UsageError

YEARS = {"voc07": "VOC2007", "voc12": "VOC2012"}


def data_folder() -> Path:
    """Where the official sets are looked for and downloaded to."""
    given = os.environ.get("SSL_BENCH_DATA")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "ssl-bench-data"


def year_folder(name: str) -> Path:
    """Where `voc07` or `voc12` is, if it is there."""
    return data_folder() / "VOCdevkit" / YEARS[name]


def voc07(argument: str) -> VOCDataset:
    """VOC2007: trainval and test."""
    return _official("voc07", argument)


def voc12(argument: str) -> VOCDataset:
    """VOC2012: train and val, as the labels of its test are not public."""
    return _official("voc12", argument)


def _official(name: str, argument: str) -> VOCDataset:
    """Raises DataError where the set is missing, incomplete or not the official one."""
    refuse_argument(name, argument)
    root = year_folder(name)
    if not root.is_dir():
        raise missing(name, root)
    for path in lists_of(name):
        if not path.is_file():
            raise DataError(f"{name} is incomplete, {path} is missing: `bench data get {name}`")
    (train, _), (test, _) = OFFICIAL[name]["Main"]  # those of Segmentation have the same names
    try:
        return VOCDataset(f"{root},name={name},train={train},test={test}")
    except UsageError as error:
        raise DataError(
            f"{root} is not {name}: {error}, as in voc:{root},name={name}-mini"
        ) from error


def lists_of(name: str) -> list[Path]:
    """The lists that make a folder the official `name`."""
    sets = year_folder(name) / "ImageSets"
    official = OFFICIAL[name].items()
    return [sets / folder / f"{listed}.txt" for folder, sizes in official for listed, _ in sizes]


def refuse_argument(name: str, argument: str) -> None:
    """UsageError for anything after the colon: an official set has no variants."""
    if argument:
        raise UsageError(f"{name} takes nothing after its name: remove ':{argument[:40]}'")


def missing(name: str, folder: Path) -> DataError:
    """What to do where an official set is not there."""
    return DataError(
        f"{name} is not there: {folder} is no folder; `bench data get {name}` fetches it, or let "
        "SSL_BENCH_DATA name the folder that it lies in"
    )
