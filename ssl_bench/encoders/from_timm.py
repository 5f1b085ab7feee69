"""Encoders of timm: any of its models; layers carry timm's own names.

Whatever a model's layout, channels come second (timm's `forward_intermediates`): maps with channels
last are turned, tokens go back to their grid, class and register tokens are left out. What a model
cannot do, at an image size above all, is refused in one line when it is built: two images without
numbers are sent through it, and `shapes` keeps what came out: {layer: (C, h, w)}.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_bench.encoders.encoder import POOLED, Encoder, check_maps, probe
from ssl_bench.encoders.libraries import check_patches, refusal
from ssl_bench.encoders.spec import Stem
from ssl_bench.encoders.stem import set_stem
from ssl_bench.errors import UsageError, plain, unknown

CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")


def check_timm_name(name: str) -> None:
    """Raise UsageError unless timm has a model, or a model with a tag of pretrained weights."""
    import timm

    if ":" in name or "/" in name:
        raise UsageError(
            f"timm:{plain(name)}: a file on the hub says which network it is, and may change; name "
            "the network, timm:NAME or timm:NAME.TAG, and other weights of it by --weights FILE"
        )
    network, dot, tag = name.partition(".")
    models = timm.list_models()
    if network not in models:
        raise unknown("timm model", name, models)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{network}.*")]
    if dot and tag not in tags:
        raise unknown(f"pretrained tag of timm:{network}", tag, tags)


def _patch(model: Any) -> int:
    """The side of the patches that an image is cut into, px; 1 of networks that cut none."""
    from timm.layers.patch_embed import PatchEmbed

    cut = getattr(model, "patch_embed", None)
    if not isinstance(cut, PatchEmbed) or cut.dynamic_img_pad:
        return 1
    return int(cut.patch_size[0])


class TimmEncoder(Encoder):
    """Any timm model that reports intermediate maps.

    `pooled` is what timm's classifier sees (`forward_head` with `pre_logits`): the global average,
    the class token or what the model has in their place, behind the final norm.
    """

    def __init__(self, name: str, image_size: int, pretrained: bool, stem: Stem = "own") -> None:
        import timm

        super().__init__()
        config = timm.get_pretrained_cfg(name)
        own = config.input_size[-1] if config else 224
        # Only models that are built for one size take it as an argument: a TypeError for the rest.
        self.fixed = bool(config and config.fixed_input_size)
        sized: dict[str, Any] = {"img_size": image_size} if self.fixed else {}
        with refusal(f"timm:{name}", image_size, own, pretrained):
            self.model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, **sized)
            set_stem(self.model, stem, f"timm:{name}")
            # CrossViT's two branches share their names: the second, of larger patches, has them.
            self._place = {info["module"]: i for i, info in enumerate(self.model.feature_info)}
        check_patches(f"timm:{name}", image_size, _patch(self.model))
        self.takes_keep = _make_room(self.model)
        self.patch_size = self.model.patch_embed.patch_size[0] if self.takes_keep else 0
        self.layers = (*self._place, POOLED)
        with refusal(f"timm:{name}", image_size, own):
            maps = self._probe(image_size)
            check_maps(maps, (2, 3, image_size, image_size), f"timm:{name}")
        self.shapes = {layer: tuple(given.shape[1:]) for layer, given in maps.items()}
        heads = self.model.default_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        self.head = tuple(f"model.{name}." for name in heads)

    def _probe(self, size: int) -> dict[str, Tensor]:
        """What all layers give; `pooled` is none of them where timm's head does not run or pool."""
        try:
            maps = probe(self, size)
            if not maps or maps[POOLED].ndim == 4:
                return maps
        except Exception:  # of the trunk: it is raised again
            pass
        self.layers = tuple(self._place)
        return probe(self, size)

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)}; see `Encoder.forward`."""
        self.check_layers(layers)
        self.check_keep(keep, images)
        if keep is None:
            return self._run(images, layers, "NCHW")
        self.model.patch_drop.keep = keep
        try:
            found = self._run(images, layers, "NLC")
        finally:
            self.model.patch_drop.keep = None
        return {k: x if k == POOLED else x.transpose(1, 2)[..., None] for k, x in found.items()}

    @contextmanager
    def hiding(self, hidden: Tensor, token: Tensor) -> Iterator[None]:
        """See `Encoder.hiding`; before the position embeddings are added."""
        if not self.takes_keep:
            raise self._shows_all()

        def cover(_module: nn.Module, _images: Any, patches: Tensor) -> Tensor:
            cells = hidden.view(*patches.shape[:-1], 1)  # (B, N, 1), or in its grid (B, h, w, 1)
            return torch.where(cells, token.to(patches.dtype), patches)

        covered = self.model.patch_embed.register_forward_hook(cover)
        try:
            yield
        finally:
            covered.remove()

    def take_any_size(self) -> None:
        """As timm's `dynamic_img_size`, which is a choice of the constructor's there.

        At the network's own size nothing changes. A size must be whole patches.
        """
        from timm.layers.format import Format
        from timm.models.vision_transformer import VisionTransformer

        if isinstance(self.model, VisionTransformer):
            embed: Any = self.model.patch_embed
            self.model.dynamic_img_size = True
            embed.strict_img_size = embed.flatten = False
            embed.output_fmt = Format.NHWC

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """By the filter with which timm reads what the model's own authors published."""
        if not any(CHUNK.match(name) for name in self.model.state_dict()):  # EfficientNets' are so
            # DINOv2 trains its blocks in chunks: CHUNK.BLOCK, where blocks are counted through.
            state = {CHUNK.sub(r"blocks.\1.", name): tensor for name, tensor in state.items()}
        filters = sys.modules[type(self.model).__module__]
        convert = getattr(filters, "checkpoint_filter_fn", None)
        return dict(convert(state, self.model)) if convert else state

    def _run(self, images: Tensor, layers: Sequence[str], form: str) -> dict[str, Tensor]:
        wanted = [name for name in self._place if name in layers]
        asked: dict[str, Any] = {"indices": [self._place[k] for k in wanted], "output_fmt": form}
        if POOLED not in layers:
            maps = self.model.forward_intermediates(
                images, stop_early=True, intermediates_only=True, **asked
            )
            return dict(zip(wanted, maps, strict=True))
        if wanted:  # one pass for both
            top, maps = self.model.forward_intermediates(images, **asked)
        else:
            top, maps = self.model.forward_features(images), []
        vector = self.model.forward_head(top, pre_logits=True)
        return {**dict(zip(wanted, maps, strict=True)), POOLED: vector[..., None, None]}


class KeepTokens(nn.Module):
    """Stands where timm drops patches at random, and keeps those that it is told to keep.

    There the position embeddings have been added, so tokens know their places. `prefix` tokens
    come first and stay. With `told`, the caller also wants to know which patches were kept: Eva
    picks its rotary embeddings by them.
    """

    keep: Tensor | None = None  # int64 (B, K); None: all

    def __init__(self, prefix: int, told: bool) -> None:
        super().__init__()
        self.prefix, self.told = prefix, told

    def forward(self, tokens: Tensor) -> Any:
        """(B, prefix + N, C) -> (B, prefix + K, C), with `keep` beside it if `told`."""
        if self.keep is not None:
            prefix, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
            # Not take_along_dim: a place beyond the last patch would wrap around in silence.
            kept = patches.gather(1, self.keep[..., None].expand(-1, -1, patches.shape[2]))
            tokens = torch.cat([prefix, kept], 1)
        return (tokens, self.keep) if self.told else tokens


def _make_room(model: Any) -> bool:
    """Put a KeepTokens into a plain vision transformer; False for any other model.

    Plain: blocks look at tokens as a set, and a token shows its own patch only. Behind a
    convolutional stem, or with windows, a patch that is left out would still be seen.
    """
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    kind, patches = type(model), getattr(model, "patch_embed", None)
    if not issubclass(kind, VisionTransformer | Eva) or type(patches) is not PatchEmbed:
        return False
    if patches.proj.kernel_size != patches.proj.stride:
        return False
    model.patch_drop = KeepTokens(model.num_prefix_tokens, issubclass(kind, Eva))
    return True
