"""Commands that compute: pretraining, evaluations, suites, exchanged results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_bench import catalogue
from ssl_bench.cli.groups import CatalogueGroup, StrictCommand
from ssl_bench.cli.options import (
    OutFolder,
    chosen_harness,
    computing_options,
    config_options,
    course_options,
    devices_option,
    feature_memory_option,
    finished_option,
    out_option,
    runtime_of,
    seeds_option,
    validated,
    variant_options,
    workspace_option,
)
from ssl_bench.data.faults import refuse
from ssl_bench.errors import UsageError, counted

if TYPE_CHECKING:
    from ssl_bench.evaluation.reference import Reference
    from ssl_bench.evaluation.suite import Suite
    from ssl_bench.records.record import EvaluationRecord, PretrainRecord


# ---- pretext → encoder
def pretrain_command(method: str) -> click.Command:
    config = catalogue.pretext(method).Config

    @click.option(
        "--data",
        multiple=True,
        default=["scenes"],
        show_default=True,
        help="Images: scenes, folder:PATH, voc:PATH … (`bench data list`); several times: the "
        "training images of all these sets.",
    )
    @click.option("--preview", is_flag=True, help="Draw what the pretext does, at the end.")
    @computing_options
    def command(
        data: tuple[str, ...], preview: bool, workspace: Path,
        keep_at: Sequence[int] | None = None, until: int | None = None, probe: str | None = None,
        probe_every: int = 0, **options: Any,
    ) -> None:  # fmt: skip
        from ssl_bench.pictures.preview import draw_preview
        from ssl_bench.runtime import is_main_process
        from ssl_bench.training.pretrain import pretrain as job

        probing = None
        if probe is not None:
            from ssl_bench.evaluation.online import OnlineProbe

            probing = OnlineProbe.of(probe, probe_every)
        run = job(
            method,
            validated(config, options),
            data,
            workspace,
            runtime_of(**options),
            skip_bad_images=options["skip_bad_images"],
            keep_at=keep_at or (),
            until=until,
            probe=probing,
        )
        _show_run(run, workspace)
        if preview and is_main_process():
            draw_preview(run, workspace, data, skip_bad_images=options["skip_bad_images"])

    made = click.command(method, cls=StrictCommand, help=catalogue.summary("pretext", method))(
        command
    )
    course = course_options() if "steps" in config.model_fields else []
    made.params = [*config_options(config), *made.params, *course, devices_option("auto")]
    return made


@click.group(cls=CatalogueGroup, registry="pretext", build=pretrain_command)
def pretrain() -> None:
    """Train an encoder without labels; a killed run continues."""


def _show_run(record: "PretrainRecord", workspace: Path) -> None:
    from ssl_bench.records.workspace import folder_of
    from ssl_bench.runtime import is_main_process

    if not is_main_process():
        return
    loss = "".join(f", {name} {value:.4g}" for name, value in record.metrics.items())
    training = record.details.training
    speed = f", {training['images_per_second']:.0f} images/s" if training else ""
    wait = f", {training['data_wait']:.1%} waiting for data" if training else ""
    skipped = record.details.skipped_images
    left = f", {counted(len(skipped), 'bad image')} skipped" if skipped else ""
    click.echo(f"{record.reference} on {record.data}{loss}{speed}{wait}{left}")
    click.echo(f"  {folder_of(workspace, record)}")


def evaluation_commands() -> list[str]:
    """The evaluations' commands: what stands before the dot of an entry point's name."""
    return sorted({name.partition(".")[0] for name in catalogue.names("eval")})


def _variants_of(name: str) -> dict[str, Any]:
    """The protocols of one command by their short names, the command's own first."""
    names = [n for n in catalogue.names("eval") if n.partition(".")[0] == name]
    first, *others = names
    # The command is asked for by name, another package's further protocol of it is not.
    found = {first: catalogue.evaluation(first), **catalogue.find_all("eval", others)}
    return {v.protocol.partition("@")[0].rpartition("/")[2]: v for v in found.values()}


def evaluation_command(name: str) -> click.Command:
    variants = _variants_of(name)
    default = next(iter(variants))

    @click.option("--encoder", "encoders", multiple=True,
                  help="METHOD, METHOD@KEY, METHOD@KEY:STEP, a weights file, timm:NAME, "
                  "torchvision:NAME, hf:ORG/NAME, onnx:FILE, hub:FOLDER:ENTRY or "
                  "file:encoder.py:build; several times; default: the newest run of every method, "
                  "of those pretrained alike.")  # fmt: skip
    @click.option("--layer", "--layers", "layers", multiple=True,
                  help="Layer to measure, several times, or all; default: the last, or the last "
                  "map where a protocol looks at places.")  # fmt: skip
    @click.option(
        "--data",
        default="scenes",
        show_default=True,
        help="Images: scenes, folder:PATH, voc:PATH … (`bench data list`).",
    )
    @click.option("--weights",
                  help="Weights of timm:NAME, torchvision:NAME or an own network from a file "
                  "(FILE, or FILE:PREFIX for one of several networks in it), or an installed "
                  "package (package:NAME); order:… may match by order.")  # fmt: skip
    @click.option("--image-size", type=int,
                  help="Side of the input of all but runs and weights files of ours. "
                  "[default: their own]")  # fmt: skip
    @feature_memory_option
    @computing_options
    def command(
        encoders: tuple[str, ...],
        layers: tuple[str, ...],
        data: str,
        weights: str | None,
        image_size: int | None,
        workspace: Path,
        protocol: str = default,
        **options: Any,
    ) -> None:
        from ssl_bench.evaluation.evaluate import evaluate
        from ssl_bench.runtime import is_main_process
        from ssl_bench.tables.forms import markdown
        from ssl_bench.tables.table import Table

        harness = chosen_harness(variants, protocol, options)
        runtime = runtime_of(**options)
        references = _references(
            encoders, layers, harness, workspace, weights=weights, image_size=image_size
        )
        records = [
            record
            for reference in references
            for record in evaluate(
                [(harness, layers)], reference, data, workspace, runtime,
                skip_bad_images=options["skip_bad_images"],
            )
        ]  # fmt: skip
        if is_main_process():
            click.echo(markdown(Table.of(records, workspace)))

    made = click.command(name, cls=StrictCommand, help=catalogue.summary("eval", name))(command)
    made.params = [*made.params[:3], *variant_options(variants), *made.params[3:]]
    if all("steps" in variant.Config.model_fields for variant in variants.values()):
        made.params.append(devices_option("1"))
    return made


def _references(
    encoders: Sequence[str], layers: Sequence[str], harness: Any, workspace: Path, **options: Any
) -> "list[Reference]":
    """Those that are named, or the default ones that the harness can measure at these layers."""
    from ssl_bench.evaluation.defaults import default_encoders, measurable, opened

    if encoders:
        return [opened(text, workspace, run_file=True, **options) for text in encoders]
    if any(options.values()):
        raise UsageError("--weights and --image-size are for what --encoder names: name one")
    wanted = [layer for layer in layers if layer != "all"]
    texts = default_encoders(workspace, lambda encoder: encoder.check_layers(wanted))
    return measurable([opened(text, workspace) for text in texts], harness, layers)


@click.command(cls=StrictCommand)
@click.argument("suite")
@out_option
@seeds_option
@finished_option
@feature_memory_option
@computing_options
def run(suite: str, out: Path | None, seeds: int | None, workspace: Path, **options: Any) -> None:
    """Do what is missing of a suite (a name or a TOML file) and print its table."""
    from ssl_bench.cli.welcome import closing_lines
    from ssl_bench.evaluation.suite_file import read_suite
    from ssl_bench.tables.family import family_of
    from ssl_bench.tables.forms import markdown, write_table
    from ssl_bench.tables.table import Table

    asked = read_suite(suite, seeds)
    failures: list[str] = []
    records = _suite_records(asked, workspace, failures, **options)
    made = Table.of(records, workspace, family_of(asked))
    click.echo(markdown(made))
    if out:
        for path in write_table(made, out):
            click.echo(f"wrote {path}", err=True)
    refuse(failures, asked.name, "; the table has all others")
    if asked.welcome:
        for line in closing_lines(asked, made, workspace):
            click.echo(line)


@click.command(cls=StrictCommand)
@click.argument("suite")
@click.option("--out", type=OutFolder(), required=True,
              help="Folder for records, predictions, pictures and tables.")  # fmt: skip
@seeds_option
@finished_option
@feature_memory_option
@computing_options
def export(suite: str, out: Path, seeds: int | None, workspace: Path, **options: Any) -> None:
    """Write a suite's committed form, without weights; what is missing of it is made."""
    from ssl_bench.evaluation.suite_file import read_suite
    from ssl_bench.tables.family import family_of
    from ssl_bench.trust.sharing import export as job

    asked = read_suite(suite, seeds)
    failures: list[str] = []
    records = _suite_records(asked, workspace, failures, **options)
    refuse(failures, asked.name, "; --finished exports all others")
    for path in job(records, workspace, out, family_of(asked)):
        click.echo(f"wrote {path}", err=True)


def _suite_records(
    suite: "Suite", workspace: Path, failures: list[str], finished: bool, **options: Any
) -> "list[EvaluationRecord]":
    """The evaluations of a suite; the missing ones are made, unless `finished`."""
    from ssl_bench.evaluation.suite_run import suite_records

    return suite_records(
        suite, workspace, runtime_of(**options),
        skip_bad_images=options["skip_bad_images"], finished=finished, failures=failures,
    )  # fmt: skip


@click.command("import", cls=StrictCommand)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@workspace_option
def import_(path: Path, workspace: Path) -> None:
    """Take an export's runs into a workspace, if `bench verify` agrees to them."""
    from ssl_bench.trust.sharing import import_runs

    click.echo(f"{counted(import_runs(path, workspace), 'run')} taken into {workspace}")
