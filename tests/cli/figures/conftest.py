"""Networks that are trained once for all pictures, and images of one's own."""

from pathlib import Path

import pytest

from helpers.gallery import DATA, RANDOM, inpainting, made
from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.gallery import Gallery


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A workspace and its runs: a central network, one for holes anywhere, an untrained alexnet."""
    folder = tmp_path_factory.mktemp("runs")
    networks = [
        made(folder, "inpainting", inpainting(mask=m)) for m in ("central", "random-region")
    ]
    return folder, [*networks, made(folder, "random", RANDOM)]


@pytest.fixture(scope="session")
def shown(runs: tuple[Path, list[str]]) -> Gallery:
    folder, names = runs
    references = [Reference(name, folder) for name in names]
    return Gallery(references, catalogue.dataset(DATA), count=2, workers=0)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    for seed in range(8):
        draw_photo(seed, 170, 150).save(folder / f"{seed}.png")
    return folder
