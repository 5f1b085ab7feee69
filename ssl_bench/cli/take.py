"""Commands that take an encoder away: for timm and the hub, as ONNX, for MTEB."""

from pathlib import Path

import click

from ssl_bench.cli.groups import StrictCommand
from ssl_bench.cli.options import OutFolder, workspace_option

weights_option = click.option("--weights", help="As evaluations take it.")
image_size_option = click.option("--image-size", type=int, help="As evaluations take it.")


@click.command("save-pretrained", cls=StrictCommand)
@click.argument("encoder")
@click.option("--out", type=OutFolder(), required=True,
              help="Folder for config.json, model.safetensors and README.md.")  # fmt: skip
@click.option("--license", default="unknown", show_default=True,
              help="The hub's name of a licence, such as mit, for the model card.")  # fmt: skip
@click.option("--push", metavar="hf:USER/NAME", help="Upload the folder to the Hugging Face hub.")
@weights_option
@image_size_option
@workspace_option
def save_pretrained(
    encoder: str, out: Path, license: str, push: str | None, weights: str | None,
    image_size: int | None, workspace: Path,
) -> None:  # fmt: skip
    """Save an encoder in timm's format, with a model card."""
    from ssl_bench.evaluation.defaults import opened
    from ssl_bench.trust.pretrained import check_target, upload
    from ssl_bench.trust.pretrained import save_pretrained as job

    if push:
        check_target(push)
    reference = opened(encoder, workspace, weights=weights, image_size=image_size)
    paths, why = job(reference, workspace, out, license)
    for path in paths:
        click.echo(f"wrote {path}", err=True)
    timm = f'timm.create_model("local-dir:{out}", pretrained=True) gives its features'
    click.echo(f"not for timm: {why}; {out}/README.md says how to load it" if why else timm)
    if push:
        click.echo(upload(out, push))


@click.command("export-onnx", cls=StrictCommand)
@click.argument("encoder")
@click.option("--layer", "--layers", "layers", multiple=True,
              help="Layer to write, several times, or all; default: the last.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file, NAME.onnx.")
@weights_option
@image_size_option
@workspace_option
def export_onnx(
    encoder: str, layers: tuple[str, ...], out: Path, weights: str | None,
    image_size: int | None, workspace: Path,
) -> None:  # fmt: skip
    """Write an encoder as ONNX, and check it by onnxruntime."""
    from ssl_bench.encoders.to_onnx import export_onnx as job
    from ssl_bench.evaluation.defaults import opened

    reference = opened(encoder, workspace, run_file=True, weights=weights, image_size=image_size)
    reference.check_weights()
    all_layers = reference.encoder.layers
    chosen = all_layers if "all" in layers else layers or all_layers[-1:]
    out.parent.mkdir(parents=True, exist_ok=True)
    worst = job(reference.encoder, reference.spec, chosen, out)
    click.echo(f"{out}: {', '.join(chosen)}; onnxruntime within {worst:.1e} of the encoder")


@click.command("export-mteb", cls=StrictCommand)
@click.argument("encoder")
@click.option("--layer", help="Layer whose mean over places is the embedding. [default: the last]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file, NAME.py.")
@weights_option
@image_size_option
@workspace_option
def export_mteb(
    encoder: str, layer: str | None, out: Path, weights: str | None, image_size: int | None,
    workspace: Path,
) -> None:  # fmt: skip
    """Write an encoder as a model for MTEB's image tasks."""
    from ssl_bench.evaluation.defaults import opened
    from ssl_bench.trust.for_mteb import export_mteb as job

    reference = opened(encoder, workspace, weights=weights, image_size=image_size)
    click.echo(f"{out}: from {out.stem} import model; its weights are {job(reference, out, layer)}")
