"""Segmentation: what padding must not do, training, the command."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eval.networks.fcn import FCN, pixel_loss
from eval.networks.frame import Framed, frames, mirror, normalized
from eval.segmentation import FCN32s, FCN32sConfig
from helpers.bench import overriding
from helpers.refusals import SCENES, fails
from helpers.subjects import subject
from ssl_bench.counter import Randomness
from ssl_bench.data.dataset import VOID, Dataset, Split
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.scenes import render as scenes
from ssl_bench.data.store.whole import open_whole
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.pictures.plots import voc_palette
from ssl_bench.runtime import Runtime

TOY: dict[str, Any] = {"kernel": 1, "head": 16}
QUICK = FCN32sConfig(steps=6, batch_size=4, lr=0.01, precision="32", **TOY)
PLAIN = Normalization(mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25))


# ---- images
class PairsSplit(Split):
    """Images (h, w, 3) and masks (h, w), uint8, from memory."""

    def __init__(self, pairs):
        self.pairs, self.labels, self.classes = pairs, None, scenes.CLASSES
        self.names = [str(i) for i in range(len(pairs))]
        content = hashlib.sha256()
        for array in (array for pair in pairs for array in pair):
            content.update(repr(array.shape).encode() + array.tobytes())
        self.fingerprint = content.hexdigest()

    def load(self, index, size, smallest):
        raise NotImplementedError

    def whole(self, index):
        image = np.ascontiguousarray(self.pairs[index][0])
        return image, hashlib.sha256(image.tobytes()).hexdigest()

    def mask(self, index):
        return np.ascontiguousarray(self.pairs[index][1])


class Pairs(Dataset):
    name, tasks = "pairs", ("segmentation",)

    def __init__(self, argument):
        self.pairs = argument

    def split(self, name, task="segmentation"):
        return PairsSplit(self.pairs)


def whole(pairs):
    return open_whole(Pairs(pairs), "train", "segmentation", None, 500, workers=0)


def scene_pairs(count, size=64, split="train", sides=None):
    """Scenes, cut to `sides` in turn, the last column of each void."""
    pairs = []
    for i in range(count):
        scene = scenes.render(0, split, i, size)
        h, w = sides[i % len(sides)] if sides else (size, size)
        mask = scene.mask[:h, :w].copy()
        mask[:, -1] = VOID
        pairs.append((scene.image[:h, :w], mask))
    return pairs


def drawn(*settings, **more):
    return whole(scene_pairs(*settings, **more))


def segmented(config, tested, train, test, folder: Path):
    folders = {layer: folder / layer for layer in tested.layers}
    for place in folders.values():
        place.mkdir(parents=True, exist_ok=True)
    harness = FCN32s(config)
    harness.check({"train": train, "test": test})
    return dict(
        harness.evaluate(tested, {"train": train, "test": test}, Runtime(workers=0), folders)
    )


# ---- padding, mirrors, the loss
def test_an_image_counts_the_same_alone_and_among_larger_ones():
    """The loss of each image does not depend on what it is padded with for the others' sake."""
    store = drawn(3, 96, sides=[(60, 90), (96, 41), (33, 33)])
    network = FCN(subject(PLAIN).encoder, "pool5", 11, **TOY).eval()
    nn.init.normal_(network.score.weight, std=0.1)
    nn.init.normal_(network.encoder.conv1[0].bias)  # type: ignore[union-attr,index]
    (framed,) = frames(store)
    assert framed.size == (96, 90)

    def loss(which):
        batch = framed.batch(np.array(which))
        sizes = torch.from_numpy(store.sizes[which])
        return pixel_loss(network(normalized(batch["images"], sizes, PLAIN)), batch["masks"])

    with torch.no_grad():
        alone = [float(loss([i])) for i in range(3)]
        assert float(loss([0, 1, 2])) == pytest.approx(np.mean(alone), rel=1e-5)
    assert len(set(alone)) == 3


def test_the_loss_is_the_mean_over_images_of_the_mean_over_labelled_pixels():
    """Caffe's normalised loss with one image at a time, whose gradients are averaged."""
    scores = torch.randn(2, 4, 5, 6)
    masks = torch.randint(0, 4, (2, 5, 6)).to(torch.uint8)
    masks[0, :3] = VOID
    each = [
        F.cross_entropy(s[None], m[None].long(), ignore_index=VOID)
        for s, m in zip(scores, masks, strict=True)
    ]
    assert torch.allclose(pixel_loss(scores, masks), torch.stack(each).mean())
    masks[0] = VOID
    assert torch.allclose(pixel_loss(scores, masks), each[1] / 2)


def test_padding_is_zero_after_normalising_and_masks_are_void_there():
    store = drawn(2, 64, sides=[(40, 64), (64, 50)])
    batch = Framed(store, (64, 70)).batch(np.array([0, 1]))
    framed, masks = batch["images"], batch["masks"]
    assert framed.shape == (2, 3, 64, 70)
    assert masks.shape == (2, 64, 70)
    assert bool((masks[0, 40:] == VOID).all())
    assert bool((masks[:, :, 64:] == VOID).all())
    inputs = normalized(framed, torch.from_numpy(store.sizes), PLAIN)
    assert not inputs[0, :, 40:].any()
    assert not inputs[1, :, :, 50:].any()
    assert torch.allclose(inputs[0, :, :40, :64], PLAIN.apply(framed[0, None, :, :40, :64])[0])


def test_mirrors_turn_images_with_their_masks_in_place():
    """Twice is nothing; within the image's width; about every second one."""
    sizes = torch.tensor([[4, 3], [4, 5]] * 50)
    pixels = torch.arange(100 * 4 * 4 * 5).remainder(251).reshape(100, 4, 4, 5).to(torch.uint8)
    random = Randomness(0, 0, torch.arange(100))
    once = mirror(pixels, sizes, random)
    assert torch.equal(mirror(once, sizes, random), pixels)
    turned = [not torch.equal(a, b) for a, b in zip(once, pixels, strict=True)]
    assert 30 < sum(turned) < 70
    narrow = next(i for i in range(0, 100, 2) if turned[i])
    assert torch.equal(once[narrow, ..., :3], pixels[narrow, ..., :3].flip(-1))
    assert torch.equal(once[narrow, ..., 3:], pixels[narrow, ..., 3:])


# ---- training
def test_the_optimiser_is_the_published_one():
    network = FCN(subject(PLAIN).encoder, "pool5", 11, **TOY)
    sgd = FCN32s(FCN32sConfig()).optimizer(network)
    groups = [
        (len(g["params"]), g["lr"], g["weight_decay"], g["momentum"]) for g in sgd.param_groups
    ]
    assert groups == [(15, 1e-4, 5e-4, 0.9), (1, 2e-4, 0, 0.9)]
    assert FCN32sConfig().model_dump() == {
        "steps": 100_000, "batch_size": 20, "lr": 1e-4, "schedule": "constant",
        "precision": "32", "seed": 0, "short": 0, "longest": 500, "kernel": 6, "head": 4096,
        "freeze": False, "rescale": False,
    }  # fmt: skip


def test_the_evaluated_encoder_stays_as_it_was_and_a_copy_learns(tmp_path):
    tested, train = subject(PLAIN, "pool5"), drawn(8)
    before = weights_digest(tested.encoder.state_dict())
    outcome = segmented(QUICK, tested, train, drawn(4, split="test"), tmp_path)["pool5"]
    assert weights_digest(tested.encoder.state_dict()) == before
    assert outcome.predictions["confusion"].shape == (4, 11, 11)
    assert outcome.predictions["confusion"].dtype == np.int32
    assert outcome.predictions["confusion"].sum() == 4 * 64 * 63  # a column of each is void
    metrics = FCN32s(QUICK).score(outcome.predictions)
    for name, value in outcome.selection["iu"].items():
        number = outcome.selection["classes"].index(name)
        assert metrics[f"iu_{number}"] == pytest.approx(value, abs=0.01)
    assert (tmp_path / "pool5" / "masks.png").stat().st_size > 5000


def networks_of(monkeypatch):
    """The networks that are trained, as they were after it."""
    kept, plain = [], FCN32s.rows

    def noting(self, network, *rest):
        kept.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return plain(self, network, *rest)

    monkeypatch.setattr(FCN32s, "rows", noting)
    return kept


def test_a_frozen_encoder_does_not_move_and_the_rest_does(tmp_path, monkeypatch):
    kept = networks_of(monkeypatch)
    tested, train = subject(PLAIN, "pool5"), drawn(8)
    layers: Any = tested.encoder
    layers.conv5.append(nn.BatchNorm2d(26))  # statistics that training would move
    for freeze in (True, False):
        config = QUICK.model_copy(update={"freeze": freeze})
        segmented(config, tested, train, drawn(2), tmp_path / str(freeze))
    start = tested.encoder.state_dict()
    same = [{n: torch.equal(state[f"encoder.{n}"], start[n]) for n in start} for state in kept]
    assert all(same[0].values())
    assert not any(same[1][n] for n in start if n.endswith("weight"))
    assert same[1]["conv5.2.running_mean"]  # eval mode: the padding's statistics are not wanted
    assert bool(kept[0]["score.weight"].any())


def test_test_masks_do_not_reach_the_predictions(tmp_path, monkeypatch):
    kept = networks_of(monkeypatch)
    test = scene_pairs(3, split="test")
    other = [(image, np.ones_like(mask)) for image, mask in test]
    for name, judged in (("a", test), ("b", other)):
        segmented(QUICK, subject(PLAIN, "pool5"), drawn(6), whole(judged), tmp_path / name)
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_four_scenes_are_learnt_by_heart(tmp_path):
    """At conv1, whose cells are 4 px apart: those of pool5 are as large as an object."""
    train, tested, scores = drawn(4, 96), subject(PLAIN, "conv1", width=0.12), []
    for steps in (1, 250):
        config = FCN32sConfig(
            steps=steps, batch_size=4, lr=0.1, precision="32", kernel=9, head=64, rescale=True
        )
        found = segmented(config, tested, train, train, tmp_path / str(steps))["conv1"]
        scores.append(FCN32s(config).score(found.predictions)["mean_iu"])
    assert scores[0] < 20
    assert scores[1] > 90


# ---- requests
def test_masks_without_anything_to_learn_or_to_judge_are_refused():
    pairs = scene_pairs(2)
    nothing = whole([(i, np.where(m == VOID, m, 0).astype(np.uint8)) for i, m in pairs])
    plain, void = whole(pairs), whole([(i, np.full_like(m, VOID)) for i, m in pairs])
    with pytest.raises(DataError, match="no class to learn"):
        FCN32s(QUICK).check({"train": nothing, "test": plain})
    with pytest.raises(DataError, match="no pixel to judge"):
        FCN32s(QUICK).check({"train": plain, "test": void})
    FCN32s(QUICK).check({"train": plain, "test": nothing})


def test_encoders_that_cannot_be_applied_to_whole_images_are_refused():
    fixed = build_encoder(
        EncoderSpec(arch="timm:vit_tiny_patch16_224", image_size=224, normalization=PLAIN)
    )
    with pytest.raises(UsageError, match="one size only"):
        FCN(fixed, fixed.maps[-1], 3, head=4)

    class Pooled(nn.Module):
        layers = ("top",)

        def forward(self, images, layers):
            return {"top": images.mean((2, 3), keepdim=True)}

    pooled: Any = Pooled()
    with pytest.raises(UsageError, match="choose another --layer"):
        FCN(pooled, "top", 3, head=4)


SEGMENT = ("segment", "--longest", "64", "--kernel", "1", "--head", "16", "--workers", "0")
STEPS = ("--steps", "3", "--batch-size", "4")


def test_the_command_writes_a_record_that_its_predictions_explain(bench, finished):
    place = (*SCENES, "--workspace", finished)
    result = bench.ok(*SEGMENT, *STEPS, "--layer", "conv5", "--layer", "pool5", *place)
    assert "segmentation/fcn32s@1 steps=3 batch_size=4 longest=64 kernel=1 head=16" in result.out
    for layer in ("conv5", "pool5"):
        (folder,) = finished.glob(f"evaluation/segmentation-fcn32s-{layer}-random-*")
        record = json.loads((folder / "record.json").read_text())
        with np.load(folder / "predictions.npz") as rows:
            assert score_with_intervals(FCN32s(QUICK), dict(rows)) == record["metrics"]
        assert set(record["files"]) == {"masks.png", "predictions.npz"}
        assert record["details"]["selection"]["classes"][:2] == ["background", "house"]
        assert record["details"]["selection"]["frame"] == [64, 64]
    assert not list(finished.rglob("checkpoint.pt"))
    again = bench(*SEGMENT, *STEPS, "--layer", "conv5", "--layer", "pool5", *place)
    assert again.out == result.out


def test_whole_images_are_resized_as_asked(bench, finished):
    words = overriding((*SEGMENT, *STEPS), "--short", "48", "--longest", "50")
    result = bench.ok(*words, "--freeze", *SCENES, "--workspace", finished)
    assert "short=48 longest=50 kernel=1 head=16 freeze=True" in result.out
    (path,) = finished.glob("evaluation/*/record.json")
    assert json.loads(path.read_text())["details"]["selection"]["frame"] == [48, 48]


def test_requests_that_cannot_be_met(bench, finished, tiny_photos):
    place = (*SCENES, "--workspace", finished)
    fails(bench(*SEGMENT, "--short", "65", *place), 2, "--short 65", "--longest 64")
    fails(bench(*SEGMENT, "--layer", "conv9", *place), 2, "unknown layer 'conv9'")
    for option, value in (
        ("--kernel", "0"), ("--head", "0"), ("--longest", "31"), ("--steps", "0"), ("--lr", "0"),
        ("--short", "-1"),
    ):  # fmt: skip
        fails(bench("segment", option, value, *place), 2, option)
    photos = ("--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(bench(*SEGMENT, *STEPS, *photos), 1, "segmentation")
    fails(bench(*SEGMENT, *STEPS, "--lr", "1e30", *place), 1, "lower --lr")


def test_a_fixed_size_encoder_is_refused_by_name_of_its_layer(bench, workspace, monkeypatch):
    def untrained(spec, pretrained=False):
        return build_encoder(spec)

    monkeypatch.setattr("ssl_bench.evaluation.reference.build_encoder", untrained)
    vit = ("--encoder", "timm:vit_tiny_patch16_224", "--workspace", workspace)
    result = bench(*SEGMENT, *STEPS, *vit, *SCENES)
    fails(result, 2, "layer blocks.11", "one size only", "convolutional")


def test_the_palette_is_vocs():
    colours = voc_palette()
    assert colours[[0, 1, 2, 8, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [64, 0, 0], [192, 128, 128], [0, 64, 128],
        [224, 224, 192],
    ]  # fmt: skip
    assert len({tuple(c) for c in colours.tolist()}) == 256
