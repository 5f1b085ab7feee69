"""The probe on real features: above raw pixels, blind to test labels, at chance when it must."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eval.linear_probe import LinearProbe, LinearProbeConfig
from helpers.subjects import subject as alexnet
from ssl_bench import catalogue
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Features, extract, pool, pooled_side

SIZE = 96


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=1200,test=600")
    return [open_store(data, split, SIZE, workers=0) for split in ("train", "test")]


def features(tested, store, dimensions=9600):
    """{layer: Features} of one pass."""
    wanted = {layer: [dimensions] for layer in tested.layers}
    rows = extract(tested.encoder, tested.spec, store, wanted)
    classes = store.index.classes
    return {k: Features(rows[k, dimensions], store.annotations, classes) for k in tested.layers}


def probed(config, tested, train, test):
    """{layer: Outcome} of a linear probe."""
    seen, unseen = features(tested, train), features(tested, test)
    return {
        k: LinearProbe(config).probe(k, {"train": seen[k], "test": unseen[k]})
        for k in tested.layers
    }


def top1(outcome):
    return LinearProbe(LinearProbeConfig()).score(outcome.predictions)["top1"]


def subject(store, layers, width=0.5):
    return alexnet(store.normalization, *layers, width=width, size=SIZE)


def test_every_layer_is_pooled_to_the_fields_grid():
    sides = {96: 55, 256: 27, 384: 13}
    assert [pooled_side(c, s, 9600) for c, s in sides.items()] == [10, 6, 5]
    assert pooled_side(256, 3, 9600) == 3  # never beyond the map
    maps = torch.arange(2 * 4 * 6 * 6.0).view(2, 4, 6, 6)
    by_hand = maps.view(2, 4, 3, 2, 3, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(pool(maps, 36), by_hand)


def test_one_pass_gives_what_each_layer_alone_gives(stores):
    train = stores[0]
    both = features(subject(train, ("conv2", "conv4")), train, 500)
    alone = features(subject(train, ("conv4",)), train, 500)
    assert torch.equal(both["conv4"].rows.whole(), alone["conv4"].rows.whole())


def test_features_follow_the_stores_order_and_freeze_the_encoder(stores):
    train = stores[0]
    tested = subject(train, ("conv1",))
    before = weights_digest(tested.encoder.state_dict())
    rows = features(tested, train, 500)["conv1"].rows.whole()
    image = train.images(np.array([777]))[..., 6:102, 6:102]  # centre of 108
    with torch.no_grad():
        maps = tested.encoder(tested.spec.normalization.apply(image), ["conv1"])["conv1"]
    assert torch.allclose(rows[777], pool(maps, 500)[0], atol=1e-4)
    assert not tested.encoder.training
    assert weights_digest(tested.encoder.state_dict()) == before


def test_raw_pixels_stay_far_below_the_encoders_features(stores):
    """The set is not solved by colour and position: even untrained convolutions see more."""
    train, test = stores
    tiny = [s.images(slice(None)).float()[..., ::4, ::4].flatten(1).numpy() for s in stores]
    scaler = StandardScaler().fit(tiny[0])
    raw = max(
        LogisticRegression(C=c, max_iter=200, tol=1e-2)
        .fit(scaler.transform(tiny[0]), train.labels)
        .score(scaler.transform(tiny[1]), test.labels)
        for c in (1e-4, 1e-2)
    )
    config = LinearProbeConfig()
    outcome = probed(config, subject(train, ("conv3",)), train, test)
    assert 100 * raw < 15
    assert top1(outcome["conv3"]) > 1.7 * 100 * raw


def test_test_labels_do_not_reach_the_predictions(stores):
    """Other test labels: the same predictions and the same choice."""
    train, test = stores
    swapped = test.index.model_copy(update={"labels": test.index.labels[::-1]})
    config = LinearProbeConfig(strengths=4)
    tested = subject(train, ("pool5",), width=0.25)
    first, second = (
        probed(config, tested, train, ImageStore(test.folder, index))["pool5"]
        for index in (test.index, swapped)
    )
    assert np.array_equal(first.predictions["predicted"], second.predictions["predicted"])
    assert first.selection["chosen"] == second.selection["chosen"]


def test_shuffled_training_labels_fall_to_chance(stores):
    train, test = stores
    labels = np.random.default_rng(0).permutation(train.labels).tolist()
    shuffled = ImageStore(train.folder, train.index.model_copy(update={"labels": labels}))
    config = LinearProbeConfig(strengths=4)
    tested = subject(train, ("conv3",), width=0.25)
    found = probed(config, tested, shuffled, test)["conv3"]
    assert 5 < top1(found) < 15  # chance is 10; ±3.7 is three standard errors of 600 images


def test_features_that_are_not_finite_name_the_layer(stores):
    train, test = stores
    tested = subject(train, ("conv2",), width=0.25)
    with torch.no_grad():
        tested.encoder.conv2[2].bias[0] = float("nan")  # type: ignore[index,union-attr]
    with pytest.raises(DataError, match="layer conv2 gives values that are not finite"):
        probed(LinearProbeConfig(), tested, train, test)


def test_constant_features_name_the_layer(stores):
    train, test = stores
    tested = subject(train, ("conv2",), width=0.25)
    with torch.no_grad():
        for parameter in tested.encoder.parameters():
            parameter.zero_()
    with pytest.raises(DataError, match="layer conv2: all features are constant"):
        probed(LinearProbeConfig(), tested, train, test)


def test_one_class_is_refused_before_anything_is_computed(stores):
    train, test = stores
    same = train.index.model_copy(update={"labels": [0] * len(train)})
    with pytest.raises(DataError, match="hold 1 class"):
        LinearProbe(LinearProbeConfig()).check(
            {"train": ImageStore(train.folder, same), "test": test}
        )
