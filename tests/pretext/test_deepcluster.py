"""DeepCluster beside its paper: clusters, what an epoch visits, the classifier, what is learnt."""

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from helpers.inpainting import NORM, a_step, outputs_of, photos, stepped
from helpers.refusals import fails
from pretext.deepcluster import DeepClusterConfig, pseudo_labels, visits_of
from ssl_bench.counter import generator
from ssl_bench.errors import DataError
from ssl_bench.training.build import build_pretext

IMAGES = 12


def small(images: int = IMAGES, **settings: Any) -> Any:
    values = {"image_size": 64, "width": 0.1, "init": "fan-in", "hidden": 8, "clusters": 3}
    return build_pretext("deepcluster", DeepClusterConfig(**values | settings), NORM, images)[0]


class Store:
    """Images in memory."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, which: np.ndarray) -> dict[str, Tensor]:
        return {"images": self.images[torch.from_numpy(which)]}


# ---- clusters
def groups(rows: int = 400, width: int = 300, count: int = 6) -> np.ndarray:
    """float32 (rows, width) around a few centres, more directions than are kept."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(count, width)) * 3
    made = centres[draw.integers(count, size=rows)] + draw.normal(size=(rows, width))
    return made.astype(np.float32)


def test_labels_are_scikit_learns_from_the_same_start() -> None:
    """Its own whitened PCA, rows of unit length, its k-means of 20 iterations."""
    rows = groups()
    found = pseudo_labels(rows, 9, generator(5))
    points = PCA(256, whiten=True, svd_solver="full").fit_transform(rows.astype(np.float64))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    start: Any = points[torch.randperm(400, generator=generator(5))[:9].numpy()]
    means: Any = KMeans
    expected = means(9, init=start, n_init=1, max_iter=20, tol=0).fit(points).labels_
    assert found.tolist() == expected.tolist()
    assert len(np.unique(found)) == 9


def test_groups_that_lie_apart_are_clusters_whatever_their_scale() -> None:
    """Of whitened rows: a direction of a hundredth of another's size counts as much."""
    truth = np.arange(60) % 3
    rows = np.zeros((60, 4), np.float32)
    rows[:, 0], rows[:, 1] = 100 * (truth == 1), truth == 2
    rows += np.random.default_rng(0).normal(scale=1e-3, size=rows.shape).astype(np.float32)
    found = pseudo_labels(rows[:, :2], 3, generator(1))
    assert len({(a, b) for a, b in zip(truth, found, strict=True)}) == 3


@pytest.mark.parametrize("rows", [np.ones((9, 4)), np.full((9, 4), np.nan)])
def test_features_without_a_difference_stop_it(rows: np.ndarray) -> None:
    with pytest.raises(DataError, match="the same or not finite: lower --lr"):
        pseudo_labels(rows.astype(np.float32), 3, generator(0))


# ---- what an epoch visits
def test_an_epoch_visits_clusters_equally_often() -> None:
    """By hand: 12 places for the clusters of 7, 1 and 4 images, of which 4 is empty."""
    labels = torch.tensor([0] * 7 + [5] + [2] * 4)
    visits = visits_of(labels, generator(0))
    assert labels[visits].bincount().tolist() == [4, 0, 4, 0, 0, 4]
    large, one, four = (visits[labels[visits] == label] for label in (0, 5, 2))
    assert len(large.unique()) == 4  # none twice
    assert one.tolist() == [7] * 4
    assert sorted(four.tolist()) == [8, 9, 10, 11]
    assert not torch.equal(visits, visits_of(labels, generator(1)))


def test_what_does_not_divide_differs_by_one_at_most() -> None:
    labels = torch.randint(7, (1000,), generator=generator(3)) ** 2
    visits = visits_of(labels, generator(0))
    assert len(visits) == 1000
    by_cluster = torch.unique(labels[visits], return_counts=True)[1]
    assert by_cluster.max() - by_cluster.min() <= 1
    for label in labels.unique():
        times = visits[labels[visits] == label].bincount(minlength=1000)[labels == label]
        assert times.max() - times.min() <= 1


# ---- the network
def test_between_epochs_labels_and_classifier_are_made_anew() -> None:
    task, store = small(), Store(photos(IMAGES, size=72))
    (sgd,) = task.optimizers()
    with torch.no_grad():
        task.between(store, 0)
        first = task.labels.clone(), task.classifier.weight.clone()
        task.between(store, 1)
    assert sorted(task.labels.unique().tolist()) == [0, 1, 2]
    assert not torch.equal(first[1], task.classifier.weight)
    assert float(task.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.4)
    assert task.classifier.bias.eq(0).all()
    with torch.no_grad():
        task.between(store, 0)
    assert torch.equal(first[0], task.labels)  # of weights and epoch alone
    task.train_step(store.images[:4], a_step(0))
    assert task.fc6.weight in sgd.state
    assert task.classifier.weight not in sgd.state  # no momentum of the classifier before


def test_loss_is_that_of_the_labels_of_the_images_that_are_seen() -> None:
    task = small()
    task.labels.copy_(torch.arange(IMAGES) % 3)
    said = outputs_of(task.classifier)
    found = stepped(task, photos(size=72))
    truth = task.labels[:4]
    assert float(found["loss"]) == pytest.approx(float(F.cross_entropy(said[0], truth)), rel=1e-6)
    right = 100 * float((said[0].argmax(1) == truth).float().mean())
    assert float(found["accuracy"]) == pytest.approx(right)


def test_units_drop_in_training_only() -> None:
    """Half of what fc7 takes, by the step's own numbers: the same on several devices."""
    task = small(hidden=400)
    pixels = torch.randn(4, 3, 64, 64, generator=generator(0))
    taken: list[Tensor] = []
    task.fc7.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    whole = [task._represented(pixels) for _ in range(2)]
    assert torch.equal(*whole)
    some = [task._represented(pixels, a_step(0).random) for _ in range(2)]
    assert torch.equal(*some)
    assert float((taken[2] == 0).float().mean()) > float((taken[0] == 0).float().mean()) + 0.15


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"hidden": None, "width": 0.25}, [(1024, 64), (1024, 1024), (3, 1024)]),
        ({"hidden": 0}, [(3, 26)]),
        ({"hidden": None, "arch": "torchvision:resnet18", "width": 1, "init": "own"}, [(3, 512)]),
    ],
)
def test_the_heads_layers(settings: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    task = small(**settings)
    heads = (part for part in (task.fc6, task.fc7, task.classifier) if part is not None)
    assert [tuple(part.weight.shape) for part in heads] == sizes


def test_more_clusters_than_images_are_refused(bench, tmp_path) -> None:
    words = ("pretrain", "deepcluster", "--image-size", 64, "--width", 0.1, "--clusters", 7)
    place = ("--data", "scenes:train=6,test=4", "--workers", 0, "--workspace", tmp_path)
    fails(bench(*words, *place), 2, "--clusters 7 is more than the 6 training images")


def test_an_epoch_of_the_loop_sees_its_clusters_equally_often(bench, tmp_path) -> None:
    """Through the command: 24 images in steps of 8, two epochs; what it kept is opened again."""
    toy = ("--image-size", 64, "--width", 0.1, "--init", "fan-in", "--hidden", 8, "--lr", 0.01)
    made = bench.ok("pretrain", "deepcluster", *toy, "--clusters", 3, "--steps", 6,
                    "--batch-size", 8, "--data", "scenes:train=24,test=4", "--workers", 0,
                    "--workspace", tmp_path)  # fmt: skip
    assert "accuracy" in made.out
    (rest,) = tmp_path.glob("pretrain/*/rest.safetensors")
    kept = load_file(rest)
    assert kept["labels"][kept["visits"]].bincount().tolist() == [8, 8, 8]


def test_it_learns_the_clusters_of_images_that_differ() -> None:
    """Three colours: clusters are the colours, and soon all are told apart."""
    colours = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]]).byte()
    store = Store(colours[torch.arange(IMAGES) % 3][:, :, None, None].expand(-1, 3, 72, 72))
    task = small(norm="batch", lr=0.1)
    task.optimizers()
    with torch.no_grad():
        task.between(store, 0)
    task.train()
    found = [task.train_step(store.images, a_step(i, IMAGES)) for i in range(40)]
    assert float(found[0]["accuracy"]) < 90
    assert float(found[-1]["loss"]) < 0.3 * float(found[0]["loss"])
