"""A suite opens its sets for each of its rows; their images are listed once."""

import pytest

from ssl_bench import catalogue
from ssl_bench.data.scenes.dataset import ScenesDataset
from ssl_bench.data.store.squares import open_store

DATA = "scenes:train=12,test=6"


def test_a_set_is_listed_once_while_a_suite_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    split = ScenesDataset.split

    def counted(self, name, *rest):
        asked.append(name)
        return split(self, name, *rest)

    monkeypatch.setattr(ScenesDataset, "split", counted)
    with catalogue.each_dataset_once():
        for _ in range(3):
            for name in ("train", "test"):
                assert len(open_store(catalogue.dataset(DATA), name, 32, workers=0)) in (12, 6)
    assert asked == ["train", "test"]
    assert catalogue.dataset(DATA) is not catalogue.dataset(DATA)  # outside each is its own
