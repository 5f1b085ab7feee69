"""An encoder as a Python file that MTEB's image tasks take as a model, its weights beside it."""

from pathlib import Path

from ssl_bench.encoders.elsewhere import scheme_of
from ssl_bench.encoders.weights import save_encoder
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.reference import Reference
from ssl_bench.files import write_atomically

TEMPLATE = '''"""An encoder of ssl-bench for MTEB's image tasks: {name}, layer {layer}.

import mteb
from {module} import model

mteb.evaluate(model, mteb.get_tasks(tasks=["CIFAR10Clustering", "STL10"]))
"""

from pathlib import Path

import ssl_bench
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

META = {{
    "name": "ssl-bench/{module}", "revision": "{digest}", "modalities": ["image"],
    "similarity_fn_name": ScoringFunction.COSINE, "framework": ["PyTorch"],
    "embed_dim": {channels}, "training_datasets": set(),
}}  # fmt: skip


class ImageEncoder(AbsEncoder):
    """Images -> float32 (N, {channels}): layer {layer}, averaged over places."""

    def __init__(self) -> None:
        self.encoder = ssl_bench.load_encoder(Path(__file__).with_suffix(".safetensors"))
        self.encoder.to("cuda" if torch.cuda.is_available() else "cpu")
        self.mteb_model_meta = ModelMeta.create_empty(META)

    def encode(self, inputs, **_):
        vectors = []
        for batch in inputs:
            images = torch.stack([self.encoder.transform(image) for image in batch["image"]])
            maps = self.encoder.encode(images, ["{layer}"])["{layer}"]
            vectors.append(maps.mean((2, 3)).cpu())
        return torch.cat(vectors).numpy()


model = ImageEncoder()
'''


def export_mteb(reference: Reference, out: Path, layer: str | None = None) -> Path:
    """Write `out`, NAME.py, and NAME.safetensors beside it; returns the latter.

    `layer` None: the last one. Raises UsageError for an encoder that only its own code or file
    builds, a layer that it lacks, or a name that no module can have.
    """
    if scheme_of(reference.spec.arch):
        raise UsageError(f"{reference.name} is not ssl-bench's to save: it came as it is")
    if out.suffix != ".py" or not out.stem.isidentifier():
        raise UsageError(f"--out takes NAME.py, a module that can be imported, not '{out.name}'")
    reference.check_weights()
    layer = layer or reference.encoder.layers[-1]
    channels = reference.encoder.shape(layer, reference.spec.image_size)[0]
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = out.with_suffix(".safetensors")
    digest = save_encoder(reference.encoder, reference.spec, weights)[:12]
    name = reference.run.reference if reference.run else reference.name
    write_atomically(out, TEMPLATE.format(
        name=name, layer=layer, module=out.stem, channels=channels, digest=digest,
    ))  # fmt: skip
    return weights
