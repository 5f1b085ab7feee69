"""`pooled`, the last layer: what the field calls a network's representation."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from eval.networks.geometry import Geometry
from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.features import extract
from ssl_bench.training.augment import center_crop


def spec(arch: str, size: int = 64) -> EncoderSpec:
    return EncoderSpec(arch=arch, image_size=size, normalization=HALF)


def built(arch: str, size: int = 64) -> Any:
    torch.manual_seed(0)
    return build_encoder(spec(arch, size)).eval()


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def pooled(encoder: Encoder, size: int = 64) -> Tensor:
    found = encoder(images(size), ["pooled"])["pooled"]
    assert found.shape[2:] == (1, 1)
    return found[..., 0, 0]


# ---- what it is
@pytest.mark.parametrize("arch", ["timm:resnet18", "torchvision:resnet18"])
def test_of_a_resnet_it_is_the_global_average_of_layer4(arch):
    encoder = built(arch)
    with torch.no_grad():
        layer4 = encoder(images(), ["layer4"])["layer4"]
    assert pooled(encoder).shape == (2, 512)
    assert torch.allclose(pooled(encoder), layer4.mean((2, 3)), atol=1e-6)


TIMM = [
    "vit_tiny_patch16_224",  # class token
    "deit_tiny_distilled_patch16_224",  # the mean of two
    "swin_tiny_patch4_window7_224",  # channels last
    "convnext_atto",  # a norm behind the average
    "mobilenetv3_small_050",  # a linear layer behind the average
]


@pytest.mark.parametrize("name", TIMM)
def test_of_a_timm_model_it_is_what_the_model_gives_without_a_classifier(name):
    encoder = built(f"timm:{name}")
    torch.manual_seed(0)
    sized: dict[str, Any] = {"img_size": 64} if encoder.fixed else {}
    plain = timm.create_model(name, num_classes=0, **sized).eval()
    with torch.no_grad():
        assert torch.allclose(pooled(encoder), plain(images()), atol=1e-6)
    assert encoder.layers[-1] == "pooled"


def test_of_a_vit_it_is_the_class_token_behind_the_norm():
    encoder = built("timm:vit_tiny_patch16_224")
    with torch.no_grad():
        tokens = encoder.model.forward_features(images())
    assert torch.allclose(pooled(encoder), tokens[:, 0], atol=1e-6)
    assert torch.allclose(pooled(encoder).std(1, correction=0), torch.ones(2), atol=1e-2)


TORCHVISION = {  # the classifier's first linear layer
    "resnet18": "fc",
    "googlenet": "fc",
    "densenet121": "classifier",
    "convnext_tiny": "classifier.2",
    "mobilenet_v3_small": "classifier.0",
    "swin_t": "head",
    "vit_b_32": "heads.head",
}


@pytest.mark.parametrize(("name", "linear"), TORCHVISION.items())
def test_of_a_torchvision_model_it_is_what_its_first_linear_layer_sees(name, linear):
    encoder = built(f"torchvision:{name}")
    expected, place = pooled(encoder), linear.rpartition(".")
    holder = encoder.model.get_submodule(place[0])
    if place[2] == "0":
        encoder.model.classifier = nn.Identity()
    else:
        setattr(holder, place[2], nn.Identity())
    with torch.no_grad():
        assert torch.allclose(encoder.model(images()), expected, atol=1e-6)
    assert encoder.layers[-1] == "pooled"


def test_torchvisions_convnext_is_normalised_behind_the_average():
    assert torch.allclose(
        pooled(built("torchvision:convnext_tiny")).mean(1), torch.zeros(2), atol=1e-5
    )


@pytest.mark.parametrize(
    "arch", ["alexnet", "torchvision:alexnet", "torchvision:vgg11", "torchvision:squeezenet1_1"]
)
def test_networks_without_one_vector_have_none(arch):
    with torch.device("meta"):
        encoder = built(arch)
    assert encoder.maps == encoder.layers
    assert "pooled" not in encoder.layers


@pytest.mark.parametrize("name", ["mobilenetv5_300m_enc", "qwen3_vit_88m_enc"])
def test_timms_encoders_whose_head_does_not_run_have_none(name):
    if not timm.list_models(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    with torch.device("meta"):
        encoder = build_encoder(spec(f"timm:{name}", 256))
    assert encoder.maps == encoder.layers


def test_a_timm_model_that_pools_nothing_has_none(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **k, global_pool=""))
    encoder = built("timm:resnet18")
    assert encoder.layers[-1] == "layer4"
    assert "pooled" not in encoder.shapes


# ---- how it is computed
@pytest.mark.parametrize("arch", ["timm:convnext_atto", "timm:vit_tiny_patch16_224",
                                  "torchvision:resnet18", "torchvision:densenet121"])  # fmt: skip
def test_maps_and_pooled_come_from_one_pass_and_are_as_alone(arch):
    encoder = built(arch)
    ran: list[str] = []
    for name, module in encoder.model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        together = encoder(images(), encoder.layers)
        assert len(ran) == len(set(ran))
        for layer in encoder.layers:
            alone = encoder(images(), [layer])
            assert list(alone) == [layer]
            assert torch.allclose(alone[layer], together[layer], atol=1e-6)
    assert tuple(together) == encoder.layers


@pytest.mark.parametrize("arch", ["timm:vit_tiny_patch16_224", "torchvision:vit_b_32"])
def test_the_norm_and_the_head_do_not_run_for_maps(arch):
    encoder = built(arch)
    for name, module in encoder.model.named_modules():
        if name in ("norm", "fc_norm", "head", "encoder.ln", "heads.head"):
            module.register_forward_hook(lambda *_: pytest.fail("nobody asked for it"))
    encoder(images(), encoder.maps)


def test_the_classifiers_dropout_does_not_thin_out_what_it_sees():
    encoder = built("torchvision:mobilenet_v2").train()
    assert torch.equal(pooled(encoder), pooled(encoder))


@pytest.mark.parametrize("arch", ["alexnet", "timm:vit_tiny_patch16_224", "torchvision:resnet18"])
def test_a_layers_shape_is_known_before_a_head_is_built(arch):
    encoder = built(arch)
    for layer, given in encoder(images(), [encoder.layers[0], encoder.layers[-1]]).items():
        assert encoder.shape(layer, 64) == given.shape[1:]
    with pytest.raises(UsageError, match="unknown layer 'poled'"):
        encoder.shape("poled", 64)


# ---- who measures it
PLACES = {"finetune", "segment", "detect", "linear-probe.zhang16"}  # they look at a grid


@pytest.mark.parametrize("name", catalogue.names("eval"))
def test_it_is_the_usual_layer_of_what_needs_no_places(name):
    encoder, harness = built("torchvision:resnet18"), catalogue.evaluation(name)
    expected = ["layer4"] if name in PLACES else ["pooled"]
    assert [*harness(harness.Config()).usual_layers(encoder)] == expected
    ours = "conv5" if name == "detect" else "pool5"
    assert [*harness(harness.Config()).usual_layers(built("alexnet"))] == [ours]


def test_what_needs_places_refuses_it_in_one_line():
    with pytest.raises(UsageError, match=r"layer pooled has 1 and 1 cells .* choose another"):
        Geometry(built("torchvision:resnet18"), "pooled")


def test_frozen_features_are_the_vector_that_the_published_neighbours_are_of():
    """DINOv2's kNN takes the class token behind the norm."""

    class Two:
        def __len__(self) -> int:
            return 2

        def images(self, which: slice) -> Tensor:
            drawn = torch.Generator().manual_seed(2)
            return torch.randint(0, 256, (2, 3, 72, 72), generator=drawn, dtype=torch.uint8)[which]

    arch = "timm:vit_tiny_patch16_224"
    encoder, crops = built(arch), center_crop(Two().images(slice(None)), 64)
    with torch.no_grad():
        expected = encoder.model(HALF.apply(crops))
    rows = extract(encoder, spec(arch), Two(), {"pooled": [9600]})["pooled", 9600]
    found = torch.cat([block for _, block in rows.blocks()]).cpu()
    assert torch.allclose(found, expected, atol=1e-5)
