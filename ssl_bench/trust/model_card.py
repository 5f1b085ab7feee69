"""The model card of an encoder: how to load it, what was measured, what made it."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.budget import is_trained
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table

FOR_TIMM = """import timm, torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # or hf-hub:USER/NAME
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
image = transform(Image.open("photo.jpg").convert("RGB"))
with torch.no_grad():
    features = model(image[None])  # (1, {channels})
"""
FOR_US = """import ssl_bench
from PIL import Image

encoder = ssl_bench.load_encoder("model.safetensors")
print(encoder.layers)  # {layers}
image = encoder.transform(Image.open("photo.jpg"))  # float32 (3, {size}, {size}), normalised
maps = encoder.encode(image[None], ["{last}"])  # {{layer: (1, channels, height, width)}}
features = maps["{last}"].flatten(1)
"""


def model_card(reference: Reference, workspace: Path, license: str, why: str) -> str:
    """README.md as the hub reads it; `why` says why timm cannot load the folder, if it cannot."""
    parts = [_front(license, is_timm=not why), f"# {reference.name}", _sentence(reference)]
    parts += ["## Load", *_loading(reference, why), "## Measured", _measured(reference, workspace)]
    rows = "\n".join(f"| {name} | {value} |" for name, value in _settings(reference))
    return "\n\n".join([*parts, "## Settings", f"| setting | value |\n|---|---|\n{rows}"]) + "\n"


def _front(license: str, *, is_timm: bool) -> str:
    tags = ["image-feature-extraction", "self-supervised-learning", "ssl-bench"]
    lines = [f"license: {license}", f"library_name: {'timm' if is_timm else 'ssl-bench'}"]
    lines += ["pipeline_tag: image-feature-extraction", "tags:"]
    return "\n".join(["---", *lines, *(f"- {t}" for t in [*tags, *(["timm"] * is_timm)]), "---"])


def _sentence(reference: Reference) -> str:
    spec, run = reference.spec, reference.run
    made = "with weights from elsewhere"
    if run:
        made = (
            f"{'pretrained by' if is_trained(run) else 'not trained,'} {run.method} on {run.data}"
        )
    return (
        f"An encoder, {spec.arch} at {spec.image_size} px, {made}; "
        f"measured by ssl-bench {version('ssl-bench')}."
    )


def _loading(reference: Reference, why: str) -> Iterator[str]:
    spec, layers = reference.spec, reference.encoder.layers
    if not why:
        channels = reference.encoder.shape(layers[-1], spec.image_size)[0]
        yield f"```python\n{FOR_TIMM.replace('{channels}', str(channels))}```"
        return
    code = FOR_US.format(layers=", ".join(layers), size=spec.image_size, last=layers[-1])
    yield f"With ssl-bench, as {why}:"
    yield f"```python\n{code}```"


def _measured(reference: Reference, workspace: Path) -> str:
    """The table of all that the workspace has of these weights."""
    records = [
        record
        for record in read_records(workspace, "evaluation")
        if (encoder := record.identity.encoder) and encoder.weights == reference.digest
    ]
    return markdown(Table.of(records, workspace)) if records else "Nothing yet."


def _settings(reference: Reference) -> Iterator[tuple[str, Any]]:
    """All that made the encoder."""
    norm = reference.spec.normalization
    yield "network", reference.spec.arch
    yield "image size", f"{reference.spec.image_size} px"
    yield "normalisation", f"mean {_numbers(norm.mean)}, deviation {_numbers(norm.std)}"
    yield "SHA-256 of the weights", reference.digest
    if reference.taken:
        yield "weights", reference.taken
    if (run := reference.run) is None:
        return
    yield "pretext", f"{run.method}, version {run.identity.version}"
    yield "images", f"{run.data}, digest {run.identity.data[:12]}"
    yield "run", run.reference
    config: Mapping[str, Any] = run.identity.config
    yield from ((name, config[name]) for name in sorted(config) if name not in ("arch",))


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
