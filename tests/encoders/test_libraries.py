"""Encoders of timm and torchvision: every layer is a map (B, C, h, w), or a line says why not."""

from collections.abc import Sequence
from typing import Any

import pytest
import timm
import torch
import torchvision.models
from torch import Tensor, nn

from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder, learn_up_to, weights_of
from ssl_bench.encoders.encoder import Encoder, check_maps, probe
from ssl_bench.encoders.from_torchvision import family_of
from ssl_bench.encoders.weights import build_shapes, weights_digest
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.features import extract, feature_bytes

BLOCK = "encoder.layers.encoder_layer"  # of torchvision's vision transformers


def spec(arch: str, size: int = 64) -> EncoderSpec:
    return EncoderSpec(arch=arch, image_size=size, normalization=HALF)


def built(arch: str, size: int = 64) -> Any:
    torch.manual_seed(0)
    return build_encoder(spec(arch, size))


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def maps_of(encoder: Encoder, size: int = 64) -> dict[str, Tensor]:
    return encoder.eval()(images(size), encoder.layers)


class Grey:
    """Four grey images."""

    def __len__(self) -> int:
        return 4

    def images(self, which: slice) -> Tensor:
        return torch.full((len(range(*which.indices(4))), 3, 72, 72), 128, dtype=torch.uint8)


# ---- layouts
@pytest.mark.parametrize(
    ("arch", "shapes"),
    [
        ("torchvision:swin_t", {"features.0": (96, 16, 16), "features.7": (768, 2, 2)}),
        ("torchvision:vit_b_32", {"conv_proj": (768, 2, 2), f"{BLOCK}_11": (768, 2, 2)}),
        ("timm:vit_tiny_patch16_224", {"blocks.0": (192, 4, 4), "blocks.11": (192, 4, 4)}),
        ("timm:swin_tiny_patch4_window7_224", {"layers.0": (96, 16, 16), "layers.3": (768, 2, 2)}),
    ],
)  # fmt: skip
def test_channels_come_second_whatever_the_library_does(arch, shapes):
    encoder = built(arch)
    maps = maps_of(encoder)
    assert (encoder.maps[0], encoder.maps[-1]) == tuple(shapes)
    for layer, shape in shapes.items():
        assert tuple(maps[layer].shape) == (2, *shape)
    assert {layer: tuple(m.shape[1:]) for layer, m in maps.items()} == encoder.shapes


def test_a_swin_is_pooled_over_places_not_over_channels():
    """96 channels of 16×16 places become 96 of 4×4; turned around it would be 16 of 9×9."""
    arch, layer, size = "torchvision:swin_t", "features.1", 96 * 4 * 4
    found = extract(built(arch), spec(arch), Grey(), {layer: [size]})
    assert found[layer, size].shape == (4, size)


def test_tokens_go_back_to_the_place_of_their_patch():
    """Each token of the library's own sequence is one cell of the map, row by row."""
    encoder = built("torchvision:vit_b_32", 96).eval()
    kept = {}
    block = encoder.model.encoder.layers[5]
    hook = block.register_forward_hook(lambda _m, _i, given: kept.update(tokens=given))
    with torch.no_grad():
        encoder.model(images(96))
    hook.remove()
    cells = maps_of(encoder, 96)[f"{BLOCK}_5"]
    for row in range(3):
        for column in range(3):
            token = kept["tokens"][:, 1 + 3 * row + column]
            assert torch.equal(cells[:, :, row, column], token)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "resnet18", "squeezenet1_1", "densenet121"])
def test_scores_of_classes_are_no_layer(name):
    encoder = built(f"torchvision:{name}")
    head = ("head", "fc", "classifier")
    assert not [layer for layer in encoder.layers if layer.startswith(head)]
    assert all(len(shape) == 3 for shape in encoder.shapes.values())


def test_a_layer_asked_for_alone_is_the_same_as_among_all():
    """A ReLU in place would overwrite the map before it."""
    for arch in ("torchvision:resnet18", "torchvision:alexnet", "timm:resnet18"):
        encoder = built(arch)
        together = {layer: m.clone() for layer, m in maps_of(encoder).items()}
        for layer in encoder.layers:
            with torch.no_grad():
                alone = encoder(images(), [layer])
            assert list(alone) == [layer]
            assert torch.equal(alone[layer], together[layer])


def test_nothing_runs_behind_the_last_layer_asked_for():
    encoder = built("torchvision:resnet18").eval()
    ran = []
    for name, module in encoder.model.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    encoder(images(), ["layer1", "conv1"])
    assert ran[-1] == "layer1"
    assert "layer2" not in ran


def test_torchvision_maps_are_those_of_its_own_feature_extraction():
    from torchvision.models.feature_extraction import create_feature_extractor

    encoder = built("torchvision:resnet18").eval()
    layers = ["layer1", "layer2", "layer3", "layer4"]
    oracle = create_feature_extractor(encoder.model, layers)
    with torch.no_grad():
        expected = oracle(images())
    assert all(torch.equal(maps_of(encoder)[layer], expected[layer]) for layer in layers)


# ---- modes and statistics
def statistics(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.named_buffers()}


@pytest.mark.parametrize("arch", ["torchvision:resnet18", "timm:resnet18"])
def test_frozen_batch_statistics_stay_through_a_forward_in_training_mode(arch):
    encoder = built(arch).train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval()
    modes, before = [m.training for m in encoder.modules()], statistics(encoder)
    encoder(images(), encoder.layers)
    assert norms
    assert [m.training for m in encoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


def test_batch_statistics_move_where_nothing_is_frozen():
    encoder = built("torchvision:resnet18").train()
    before = statistics(encoder)
    encoder(images(), encoder.layers)
    assert not torch.equal(encoder.model.bn1.running_mean, before["model.bn1.running_mean"])


@pytest.mark.parametrize("arch", ["alexnet", "torchvision:resnet18", "timm:resnet18"])
@pytest.mark.parametrize("training", [True, False])
def test_questions_about_an_encoder_leave_its_modes_and_statistics(arch, training):
    encoder = built(arch).train(training)
    first = next(m for m in encoder.modules() if not list(m.children()))
    first.train(not training)  # a mode of its own
    modes, before = [m.training for m in encoder.modules()], statistics(encoder)
    top = encoder.layers[-1]
    weights_of(encoder, top, 64)
    learn_up_to(encoder, top, 64)
    feature_bytes(encoder, spec(arch), 10, {top: [100]})
    probe(encoder, 64)
    assert [m.training for m in encoder.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_do_not_run(name):
    """In training mode they would ask for images of the library's own size."""
    encoder = built(f"torchvision:{name}", 96).train()
    assert encoder.model.Conv2d_2b_3x3.training if name == "inception_v3" else encoder.training
    for module_name, module in encoder.model.named_modules():
        if "aux" in module_name.lower():
            module.register_forward_hook(lambda *_: pytest.fail("an auxiliary classifier ran"))
    assert set(encoder(images(96), encoder.layers)) == set(encoder.layers)


# ---- building
@pytest.mark.parametrize("arch", ["torchvision:resnet18", "torchvision:vit_b_32", "timm:resnet18"])
def test_the_probe_leaves_the_weights_that_the_seed_drew(arch):
    library, _, name = arch.partition(":")
    torch.manual_seed(0)
    if library == "timm":
        plain: nn.Module = timm.create_model(name, num_classes=0)
    else:
        sized = {"image_size": 64} if name == "vit_b_32" else {}
        plain = torchvision.models.get_model(name, **sized)
    drawn = torch.rand(())
    encoder = built(arch)
    assert torch.equal(torch.rand(()), drawn)
    assert weights_digest(encoder.model.state_dict()) == weights_digest(plain.state_dict())


SIZED_BY_THE_LIBRARY = [
    "deit_tiny_patch16_224",
    "mixer_s32_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
]


@pytest.mark.parametrize("name", SIZED_BY_THE_LIBRARY)
def test_timm_says_which_models_are_built_for_a_size(name):
    encoder = built(f"timm:{name}")
    assert all(m.shape[:1] == (2,) and m.ndim == 4 for m in maps_of(encoder).values())


@pytest.mark.parametrize("name", ["davit_tiny", "fastvit_t8", "tiny_vit_5m_224", "efficientvit_m0"])
def test_a_name_with_vit_in_it_says_nothing(name):
    """The libraries' constructors take no image size here: TypeError, once."""
    shapes = build_shapes(spec(f"timm:{name}", 96))
    assert shapes


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("timm:levit_128s", 100),
        ("torchvision:vit_b_32", 100),
        ("torchvision:maxvit_t", 64),
        ("torchvision:inception_v3", 32),
    ],
)
def test_what_a_model_cannot_do_is_one_line(arch, size):
    with pytest.raises(UsageError) as refused:
        build_shapes(spec(arch, size))
    line = str(refused.value)
    assert line.startswith(f"{arch} cannot be used at {size} px (its own size is ")
    assert "\n" not in line


@pytest.mark.parametrize(
    "raised", [TypeError("no\nsuch argument"), AssertionError(), KeyError("x")]
)
def test_any_error_of_a_library_is_a_refusal_in_one_line(raised, monkeypatch):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        UsageError, match=r"^timm:resnet18 cannot be used at 64 px .*: .+$"
    ) as found:
        built("timm:resnet18")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("raised", [ConnectionError("no network"), RuntimeError("no weights")])
def test_weights_that_cannot_be_had_are_no_refusal_of_the_model(raised, monkeypatch):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(type(raised), match=str(raised)):
        build_encoder(spec("timm:resnet18"), pretrained=True)


def test_a_model_that_reads_numbers_is_probed_with_some(monkeypatch):
    class Reader(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum().item() == 0 else x

    encoder = built("torchvision:resnet18")
    encoder.model.relu = Reader()
    assert {k: tuple(m.shape[1:]) for k, m in probe(encoder, 64).items()} == encoder.shapes


def test_what_a_model_caches_stays_out_of_the_probe():
    """LeViT keeps what it gathered from its weights, by device, while it is in eval mode."""
    encoder = built("timm:levit_128s")
    caches = [
        m.attention_bias_cache for m in encoder.modules() if hasattr(m, "attention_bias_cache")
    ]
    assert caches
    assert not any(caches)


# ---- the check
class Wrong(Encoder):
    """A third party's: what `give` makes of (B, 8, 4, 4)."""

    layers = ("a", "b")

    def __init__(self, give: Any) -> None:
        super().__init__()
        self.weight, self.give = nn.Parameter(torch.ones(())), give

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        maps = self.weight * torch.ones(len(images), 8, 4, 4)
        return {layer: self.give(maps) if layer == "b" else maps for layer in layers}


WRONG = {
    "channels last": (lambda m: m.permute(0, 2, 3, 1), r"\(4, 4, 4, 8\)"),
    "tokens": (lambda m: m.flatten(2).transpose(1, 2), r"\(4, 16, 8\)"),
    "scores": (lambda m: m.mean((2, 3)), r"\(4, 8\)"),
    "several maps": (lambda m: [m, m], "list"),
    "one image's": (lambda m: m[:1], r"\(1, 8, 4, 4\)"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_whoever_wrote_an_encoder_its_layers_must_be_maps(kind):
    give, found = WRONG[kind]
    encoder, own = Wrong(give), spec("theirs")
    assert extract(encoder, own, Grey(), {"a": [32]})["a", 32].shape == (4, 32)
    with pytest.raises(UsageError, match=f"theirs: layer b gives {found} for images"):
        extract(encoder, own, Grey(), {"a": [32], "b": [32]})
    if kind != "one image's":
        with pytest.raises(UsageError, match="not a map"):
            feature_bytes(encoder, own, 4, {"b": [32]})


def test_maps_of_oblong_images_may_be_oblong():
    check_maps({"a": torch.empty(2, 8, 3, 5)}, (2, 3, 48, 80))


def test_the_check_looks_at_shapes_only():
    check_maps({"a": torch.empty(2, 8, 4, 4, device="meta")}, (2, 3, 64, 64))


def test_families_are_those_of_the_library():
    assert family_of("vit_b_16") == "vision_transformer"
