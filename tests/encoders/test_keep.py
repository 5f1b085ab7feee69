"""`keep`: vision transformers that see some of an image's tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.errors import UsageError

SIDE = 4  # patches
VIT = "vit_tiny_patch16_224"
NAMES = {  # px of a patch
    VIT: 16,
    "deit_tiny_distilled_patch16_224": 16,  # two prefix tokens
    "deit3_small_patch16_224": 16,  # positions without the class token
    "eva02_tiny_patch14_224": 14,  # rotary embeddings, one for all blocks
    "vit_small_patch16_rope_mixed_224": 16,  # rotary embeddings, one a block and head
    "vit_small_patch16_dinov3": 16,  # register tokens, rotary embeddings only
}
# Of each image other patches, in another order.
KEEP = torch.tensor([[3, 0, 9, 14, 5], [15, 1, 2, 8, 4]])


@pytest.fixture(scope="module", params=NAMES)
def case(request) -> tuple[Any, int]:
    """An encoder for 4×4 patches, and the side of a patch."""
    return built(request.param), NAMES[request.param]


def built(name: str) -> Any:
    torch.manual_seed(0)
    size = SIDE * NAMES[name]
    spec = EncoderSpec(arch=f"timm:{name}", image_size=size, normalization=HALF)
    encoder = build_encoder(spec).eval()
    with torch.no_grad():  # what begins at nearly nothing would hide an error
        for key, weight in encoder.named_parameters():
            if key.endswith(("cls_token", "reg_token", "pos_embed")) or ".gamma" in key:
                weight.normal_(std=0.5)
    return encoder


def images(patch: int) -> Tensor:
    side = SIDE * patch
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(encoder: Any, pictures: Tensor, keep: Tensor | None = None) -> dict[str, Tensor]:
    return encoder(pictures, encoder.layers, keep)


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_all_tokens_in_any_order_are_the_plain_pass_in_that_order(case):
    encoder, patch = case
    plain = run(encoder, images(patch))
    orders = torch.stack([torch.arange(SIDE**2), torch.arange(SIDE**2).flip(0)])
    found = run(encoder, images(patch), orders)
    for layer in encoder.maps:
        cells = plain[layer].flatten(2)  # (B, C, N)
        assert found[layer].shape == (*cells.shape, 1)
        assert close(found[layer][0, ..., 0], cells[0])
        assert close(found[layer][1, ..., 0], cells[1].flip(1))
    assert close(found["pooled"], plain["pooled"])


def test_patches_that_are_left_out_do_not_matter_at_all(case):
    encoder, patch = case
    pictures = images(patch)
    changed = torch.full_like(pictures, 7.0)
    for image, kept in enumerate(KEEP.tolist()):
        for row, column in (divmod(place, SIDE) for place in kept):
            cell = image, slice(None), *(slice(k * patch, (k + 1) * patch) for k in (row, column))
            changed[cell] = pictures[cell]
    first, second = (run(encoder, x, KEEP) for x in (pictures, changed))
    assert all(torch.equal(first[layer], second[layer]) for layer in encoder.layers)
    plain = run(encoder, pictures)["pooled"]
    assert not close(plain, first["pooled"])


def test_kept_tokens_are_what_the_blocks_make_of_them_by_hand():
    encoder = built(VIT)
    model, pictures = encoder.model, images(16)
    found = run(encoder, pictures, KEEP)
    with torch.no_grad():
        patches = model.patch_embed(pictures) + model.pos_embed[:, 1:]
        kept = torch.stack([tokens[chosen] for tokens, chosen in zip(patches, KEEP, strict=True)])
        first = (model.cls_token + model.pos_embed[:, :1]).expand(2, -1, -1)
        tokens = torch.cat([first, kept], 1)
        for place, block in enumerate(model.blocks):
            tokens = block(tokens)
            assert close(found[f"blocks.{place}"][..., 0], tokens[:, 1:].transpose(1, 2))
        expected = model.norm(tokens)[:, 0]
    assert close(found["pooled"][..., 0, 0], expected)


def test_gradients_flow_to_what_is_seen_only(case):
    encoder, patch = case
    pictures = images(patch).requires_grad_()
    encoder(pictures, [encoder.maps[-1]], KEEP)[encoder.maps[-1]].square().sum().backward()
    assert pictures.grad is not None
    touched = pictures.grad.abs().sum(1).unfold(1, patch, patch).unfold(2, patch, patch)
    seen = touched.sum((3, 4)).flatten(1) > 0  # (B, patches)
    expected = torch.zeros(2, SIDE**2, dtype=torch.bool).scatter_(1, KEEP, True)
    assert torch.equal(seen, expected)


def test_nothing_of_it_is_left_behind():
    encoder = built(VIT)
    before, keys = run(encoder, images(16)), list(encoder.state_dict())
    run(encoder, images(16), KEEP)
    with pytest.raises(RuntimeError):
        run(encoder, images(16), KEEP + SIDE**2)  # no such patch
    after = run(encoder, images(16))
    assert all(torch.equal(before[layer], after[layer]) for layer in encoder.layers)
    assert list(encoder.state_dict()) == keys


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("alexnet", 64),
        ("torchvision:vit_b_32", 64),
        ("timm:resnet18", 64),
        ("timm:swin_tiny_patch4_window7_224", 64),  # windows
        ("timm:vit_tiny_r_s16_p8_224", 64),  # a convolutional stem: patches see their neighbours
        ("timm:samvit_base_patch16_224", 64),
    ],
)
def test_encoders_without_tokens_to_leave_out_refuse(arch, size):
    encoder = build_encoder(EncoderSpec(arch=arch, image_size=size, normalization=HALF))
    assert not encoder.takes_keep
    with pytest.raises(UsageError, match=r"^\w+ cannot leave out or hide tokens: .*timm.*$"):
        encoder(images(16), encoder.layers[-1:], KEEP)


@pytest.mark.parametrize("keep", [KEEP.int(), KEEP[0], KEEP[:1]])
def test_other_forms_are_refused_in_one_line(keep):
    encoder = built(VIT)
    with pytest.raises(UsageError, match=r"^`keep` is int64 \(B, K\) for 2 images, not torch\.int"):
        encoder(images(16), ["pooled"], keep)


def test_a_token_stands_for_hidden_patches_as_their_own_embedding_would(case):
    """Black patches, hidden behind what the network makes of one black patch: nothing changes."""
    encoder, patch = case
    pictures, hidden = images(patch), torch.zeros(2, SIDE**2, dtype=torch.bool)
    hidden.scatter_(1, KEEP, True)
    with torch.no_grad():
        token = encoder.model.patch_embed.proj(torch.zeros(1, 3, patch, patch)).flatten()
    black = pictures.clone()
    for image, places in enumerate(KEEP.tolist()):
        for row, column in (divmod(place, SIDE) for place in places):
            cell = image, slice(None), *(slice(k * patch, (k + 1) * patch) for k in (row, column))
            black[cell] = 0
    expected, plain = run(encoder, black), run(encoder, pictures)
    with encoder.hiding(hidden, token):
        found = run(encoder, pictures)
    for layer in encoder.layers:
        assert close(found[layer], expected[layer])
        assert not close(found[layer], plain[layer])
        assert torch.equal(run(encoder, pictures)[layer], plain[layer])  # nothing is left behind
