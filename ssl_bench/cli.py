"""The `bench` command: thin, and quick to answer; torch is imported inside commands only."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_bench import catalogue
from ssl_bench.errors import BenchError, UsageError, plain, unknown
from ssl_bench.options import (
    chosen_harness,
    computing_options,
    config_options,
    devices_option,
    feature_memory_option,
    finished_option,
    out_option,
    refused,
    runtime_of,
    validated,
    variant_options,
    workspace_option,
)

if TYPE_CHECKING:
    from ssl_bench.records import Record


def main() -> None:
    """Run `bench`; a BenchError becomes one line and its exit code, unless `--debug`."""
    try:
        catalogue.check_layout()
        words = [word for word in sys.argv[1:] if word != "--debug"]  # anywhere in the line
        code = cli.main(words, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (BenchError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        text = str(error) if isinstance(error, BenchError) else _system_error(error)
        lines = text.split("\n") if hasattr(error, "lines") else [text]
        click.echo("bench: " + "\n".join(map(plain, lines)), err=True)
        sys.exit(error.exit_code if isinstance(error, BenchError) else 1)


def _system_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    said = error.strerror or str(error)
    return said.rstrip().splitlines()[-1] + where  # of a loader's process it is a whole traceback


class _Group(click.Group):
    """A group that proposes the nearest command for a typo."""

    kind = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise unknown(self.kind, args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class _Methods(_Group):
    """Commands made from entry points: named without loading them, loaded when one is chosen."""

    kind = "pretext"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return catalogue.names("pretext")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in catalogue.names("pretext"):
            return None
        return _pretrain_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Pretexts"):
            formatter.write_dl(
                [(n, catalogue.summary("pretext", n)) for n in self.list_commands(ctx)]
            )


class _Measurements(_Group):
    """Speed and memory of parts of ours, from entry points."""

    kind = "measurement"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return catalogue.names("perf")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in catalogue.names("perf"):
            return None
        return _perf_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Measurements"):
            formatter.write_dl([(n, catalogue.summary("perf", n)) for n in self.list_commands(ctx)])


class _Bench(_Group):
    """The top level: commands of ours and one per evaluation."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is None and cmd_name in _commands():
            return _evaluation_command(cmd_name)
        return own

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            own = {n: super(_Bench, self).get_command(ctx, n) for n in sorted(self.commands)}
            formatter.write_dl([(n, c.get_short_help_str(90)) for n, c in own.items() if c])
        with formatter.section("Evaluations"):
            formatter.write_dl([(n, catalogue.summary("eval", n)) for n in _commands()])


@click.group(cls=_Bench, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssl-bench", prog_name="bench")
@click.option("--debug", is_flag=True, help="Show tracebacks; may stand anywhere.")
def cli(debug: bool) -> None:
    """A benchmark for self-supervised visual features.

    Train a pretext without labels, freeze or fine-tune the encoder, print the table:

    \b
      bench run quickstart
      bench pretrain context-encoder --data folder:photos
      bench linear-probe --layer pool5 --data folder:photos
    """


# ---- pretext → encoder


@cli.group(cls=_Methods)
def pretrain() -> None:
    """Train an encoder without labels; a killed run continues."""


def _pretrain_command(method: str) -> click.Command:
    config = catalogue.pretext(method).Config

    @click.option(
        "--data",
        default="scenes",
        show_default=True,
        help="Images: scenes, folder:PATH, voc:PATH … (`bench data list`).",
    )
    @click.option("--preview", is_flag=True, help="Draw what the pretext does, at the end.")
    @computing_options
    def command(data: str, preview: bool, workspace: Path, **options: Any) -> None:
        from ssl_bench.pretrain import pretrain as job

        run = job(
            method,
            validated(config, options),
            data,
            workspace,
            runtime_of(**options),
            preview=preview,
            skip_bad_images=options["skip_bad_images"],
        )
        _show_run(run, workspace)

    made = click.command(method, help=catalogue.summary("pretext", method))(command)
    made.params = [*config_options(config), *made.params, devices_option("auto")]
    return made


def _show_run(record: Any, workspace: Path) -> None:
    from ssl_bench.progress import is_main_process
    from ssl_bench.records import folder_of

    if not is_main_process():
        return
    loss = "".join(f", {name} {value:.4g}" for name, value in record.metrics.items())
    training = record.details.get("training")
    speed = f", {training['images_per_second']:.0f} images/s" if training else ""
    wait = f", {training['data_wait']:.1%} waiting for data" if training else ""
    skipped = record.details["skipped_images"]
    plural = "s" if len(skipped) != 1 else ""
    left = f", {len(skipped)} bad image{plural} skipped" if skipped else ""
    click.echo(f"{record.method}@{record.key[:12]} on {record.data}{loss}{speed}{wait}{left}")
    click.echo(f"  {folder_of(workspace, record)}")


# ---- encoder → record


def _commands() -> list[str]:
    """The evaluations' commands: what stands before the dot of an entry point's name."""
    return sorted({name.partition(".")[0] for name in catalogue.names("eval")})


def _variants(name: str) -> dict[str, Any]:
    """The protocols of one command by their short names, the command's own first."""
    names = [n for n in catalogue.names("eval") if n.partition(".")[0] == name]
    found = [catalogue.evaluation(n) for n in names]
    return {v.protocol.partition("@")[0].rpartition("/")[2]: v for v in found}


def _evaluation_command(name: str) -> click.Command:
    variants = _variants(name)
    default = next(iter(variants))

    @click.option("--encoder", "encoders", multiple=True,
                  help="METHOD, METHOD@KEY, a weights file, timm:NAME or torchvision:NAME; "
                  "several times; default: the newest run of every method.")  # fmt: skip
    @click.option("--layer", "--layers", "layers", multiple=True,
                  help="Layer to measure, several times, or all; default: the last.")  # fmt: skip
    @click.option(
        "--data",
        default="scenes",
        show_default=True,
        help="Images: scenes, folder:PATH, voc:PATH … (`bench data list`).",
    )
    @click.option("--weights",
                  help="Weights of timm:NAME, torchvision:NAME or alexnet from a file, or from an "
                  "installed package (package:NAME).")  # fmt: skip
    @click.option("--image-size", type=int,
                  help="Side of the input of timm:NAME and torchvision:NAME. "
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
        from ssl_bench.evaluate import evaluate
        from ssl_bench.progress import is_main_process
        from ssl_bench.reference import Reference, newest_of_each
        from ssl_bench.tables import Table

        harness = chosen_harness(variants, protocol, options)
        runtime = runtime_of(**options)
        references = [
            Reference(text, workspace, weights=weights, image_size=image_size)
            for text in encoders or newest_of_each(workspace)
        ]
        records = [
            record
            for reference in references
            for record in evaluate(
                [(harness, layers)], reference, data, workspace, runtime,
                skip_bad_images=options["skip_bad_images"],
            )
        ]  # fmt: skip
        if is_main_process():
            click.echo(Table.of(records, workspace).markdown())

    made = click.command(name, help=catalogue.summary("eval", name))(command)
    made.params = [*made.params[:3], *variant_options(variants), *made.params[3:]]
    if all("steps" in variant.Config.model_fields for variant in variants.values()):
        made.params.append(devices_option("1"))
    return made


# ---- records → tables


@cli.command()
@workspace_option
def runs(workspace: Path) -> None:
    """List the finished runs of a workspace, oldest first."""
    from ssl_bench.tables import run_lines

    for line in run_lines(workspace):
        click.echo(plain(line))


@cli.command()
@workspace_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "latex"]),
    default="markdown",
    show_default=True,
    help="What the table is written as.",
)
@out_option
def table(workspace: Path, form: str, out: Path | None) -> None:
    """Print the table of all evaluations in a workspace."""
    from ssl_bench.records import read_records
    from ssl_bench.tables import Table

    records = read_records(workspace, "evaluation")
    if not records:
        raise UsageError(f"no evaluation in {workspace}: `bench linear-probe` makes one")
    made = Table.of(records, workspace)
    click.echo(getattr(made, form)())
    if out:
        for path in made.write(out):
            click.echo(f"wrote {path}", err=True)


@cli.command()
@click.argument("suite")
@out_option
@finished_option
@feature_memory_option
@computing_options
def run(suite: str, out: Path | None, workspace: Path, **options: Any) -> None:
    """Do what is missing of a suite (a name or a TOML file) and print its table."""
    from ssl_bench.tables import Table

    made = Table.of(_suite_records(suite, workspace, **options), workspace)
    click.echo(made.markdown())
    if out:
        for path in made.write(out):
            click.echo(f"wrote {path}", err=True)


@cli.command()
@click.argument("suite")
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder for records, predictions, pictures and tables.")  # fmt: skip
@finished_option
@feature_memory_option
@computing_options
def export(suite: str, out: Path, workspace: Path, **options: Any) -> None:
    """Write a suite's committed form, without weights; what is missing of it is made."""
    from ssl_bench.sharing import export as job

    for path in job(_suite_records(suite, workspace, **options), workspace, out):
        click.echo(f"wrote {path}", err=True)


def _suite_records(suite: str, workspace: Path, finished: bool, **options: Any) -> "list[Record]":
    """The evaluations of a suite; the missing ones are made, unless `finished`."""
    from ssl_bench.suite import read_suite, suite_records

    return suite_records(
        read_suite(suite), workspace, runtime_of(**options),
        skip_bad_images=options["skip_bad_images"], finished=finished,
    )  # fmt: skip


@cli.command("import")
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@workspace_option
def import_(path: Path, workspace: Path) -> None:
    """Take an export's runs into a workspace, if `bench verify` agrees to them."""
    from ssl_bench.sharing import bring_in

    click.echo(f"{bring_in(path, workspace)} runs taken into {workspace}")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), default="report.html", show_default=True,
              help="The page.")  # fmt: skip
@click.option("--title", default="ssl-bench", show_default=True, help="What stands above it.")
@workspace_option
def report(out: Path, title: str, workspace: Path) -> None:
    """Write one HTML page: tables, pictures, and the record behind each number."""
    from ssl_bench.records import read_records
    from ssl_bench.report import write_report

    records = read_records(workspace, "evaluation")
    if not records:
        raise UsageError(f"no evaluation in {workspace}: `bench linear-probe` makes one")
    write_report(records, workspace, out, title)
    click.echo(f"wrote {out}", err=True)


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--protocol", help="Only this one, with its version or without.")
@workspace_option
def compare(a: str, b: str, protocol: str | None, workspace: Path) -> None:
    """Compare two methods, A − B, wherever both were measured alike.

    A and B are METHOD (its newest run) or METHOD@KEY, or the name of a row without an encoder.
    """
    from ssl_bench.comparison import comparison
    from ssl_bench.protocols import protocol as known
    from ssl_bench.records import read_records

    name = known(protocol).name if protocol else None
    click.echo(comparison(read_records(workspace), a, b, name, workspace))


@cli.command()
@click.argument("key")
@workspace_option
def show(key: str, workspace: Path) -> None:
    """Print all that made a number, and the command that makes it again."""
    from ssl_bench.provenance import lines_of, record_of

    for line in lines_of(record_of(workspace, key)):
        click.echo(line)


@cli.command()
@click.argument("key")
@click.option("--data", help="Where the images are, if the record's name of them is no place.")
@computing_options
def rerun(key: str, data: str | None, workspace: Path, **options: Any) -> int:
    """Make a run again, apart, and compare: bit for bit on a CPU."""
    from ssl_bench.provenance import record_of
    from ssl_bench.provenance import rerun as job

    record = record_of(workspace, key)
    found = job(
        record, workspace, data or record.data, runtime_of(**options),
        skip_bad_images=options["skip_bad_images"],
    )  # fmt: skip
    for line in found:
        click.echo(f"{record.key[:12]}: {line}")
    if not found:
        click.echo(f"{record.key[:12]}: the same, bit for bit")
    return 1 if found else 0


@cli.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
def verify(path: Path) -> int:
    """Compute every metric, digest and table below PATH again; exit 0 if all agree."""
    from ssl_bench.verify import disagreements, workspaces_in

    found = workspaces = 0
    for workspace in workspaces_in(path):
        workspaces += 1
        for line in disagreements(workspace):
            found += 1
            click.echo(plain(line))
    click.echo(f"{workspaces} workspaces, {found} disagreements", err=True)
    return 1 if found else 0


# ---- protocols


@cli.group(cls=_Group, invoke_without_command=True)
@click.pass_context
def protocols(context: click.Context) -> None:
    """List the protocols with their sources, or `show` one."""
    if context.invoked_subcommand is None:
        from ssl_bench.protocols import protocols as known

        for one in known().values():
            click.echo(f"{one.printed:26} {one.digest}  {one.command}")
            click.echo(f"{'':26} {one.source}")


@protocols.command("show")
@click.argument("name")
def protocols_show(name: str) -> None:
    """Print a protocol's canonical settings."""
    from ssl_bench.protocols import protocol

    found = protocol(name)
    click.echo(f"{found.printed}, {found.digest}: {found.command}")
    click.echo(f"source: {found.source}")
    click.echo(f"metric: {found.metric}")
    for setting, value in found.settings.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        click.echo(f"  --{setting.replace('_', '-')} {text}")


# ---- pictures


@cli.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--encoder",
              help="METHOD or METHOD@KEY of a pretext that fills holes; default: the newest "
              "run of one.")  # fmt: skip
@click.option("--mask", default="central", show_default=True,
              help="central, or a FILE that is white where the image is missing.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder for the filled images, as PNG.")  # fmt: skip
@workspace_option
def inpaint(
    images: tuple[Path, ...], encoder: str | None, mask: str, out: Path, workspace: Path
) -> int:
    """Fill holes in images of any size; folders are taken whole."""
    from ssl_bench.inpaint import inpaint as job
    from ssl_bench.inpaint import photographs_in
    from ssl_bench.progress import progress, say
    from ssl_bench.reference import Reference, newest_that_inpaints

    sources = photographs_in(images)
    reference = Reference(encoder or newest_that_inpaints(workspace), workspace)
    failed = 0
    for done in progress(job(sources, reference, mask, out), "images", len(sources)):
        if done.target:
            click.echo(plain(f"{done.target}: {done.said}"))
        else:
            failed += 1
            say(f"bench: {done.said}")
    if failed:
        say(f"{failed} of {len(sources)} images were not filled")
    return 1 if failed else 0


@cli.command()
@click.argument("figures", nargs=-1, metavar="[FIGURE]...")
@click.option("--encoder", "encoders", multiple=True,
              help="METHOD, METHOD@KEY, a weights file, timm:NAME or torchvision:NAME; several "
              "times; default: the newest run of every method.")  # fmt: skip
@click.option("--data", default="scenes", show_default=True,
              help="Images that are shown; neighbours are sought in its train split.")  # fmt: skip
@click.option("--count", type=click.IntRange(1, 20), default=6, show_default=True,
              help="Images in a figure.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of which images, and of masks.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Processes that decode images.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder for NAME.png and NAME.pdf.")  # fmt: skip
@workspace_option
def figures(
    figures: tuple[str, ...],
    encoders: tuple[str, ...],
    data: str,
    count: int,
    seed: int,
    workers: int,
    out: Path,
    workspace: Path,
) -> None:
    """Draw the paper's pictures from one's own runs; no FIGURE named: all that can be drawn."""
    from ssl_bench.gallery import Gallery
    from ssl_bench.progress import say
    from ssl_bench.reference import Reference, newest_of_each

    makers = {name: catalogue.load("figure", name) for name in figures or catalogue.names("figure")}
    known = any(workspace.glob("pretrain/*/record.json"))
    named = encoders or (newest_of_each(workspace) if known else ())
    references = [Reference(text, workspace) for text in named]
    gallery = Gallery(references, catalogue.dataset(data), count, seed, workers)
    out.mkdir(parents=True, exist_ok=True)
    for name, maker in makers.items():
        try:
            paths = maker(gallery).draw(out / name)
        except UsageError as error:
            if figures:
                raise UsageError(f"{name}: {error}") from error
            say(f"{name} is left out: {error}")
        else:
            click.echo(f"{name}: {', '.join(map(str, paths))}")


# ---- data


@cli.group(cls=_Group)
def data() -> None:
    """List, fetch and check sets of images."""


@data.command("list")
def data_list() -> None:
    """List all sets: where they are, and how many images they have for each task."""
    from ssl_bench.data.survey import listing

    for line in listing():
        click.echo(line)


@data.command("get")
@click.argument("name")
def data_get(name: str) -> None:
    """Download and unpack an official set: voc07, voc12 or voc12+sbd."""
    from ssl_bench.data.download import get
    from ssl_bench.data.survey import counted

    dataset = get(name)
    click.echo(f"{name} is in {dataset.where}")
    for line in counted(dataset):
        click.echo(f"  {line}")


@data.command("check")
@click.argument("name")
@click.option(
    "--task",
    type=click.Choice(["classification", "detection", "segmentation"]),
    help="What to check it for. [default: all that it has]",
)
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
              help="Processes that read images.")  # fmt: skip
def data_check(name: str, task: Any, workers: int) -> None:
    """Read all of a set, such as voc:PATH: print what is in it, and all that is wrong with it."""
    from ssl_bench.data.survey import check

    for line in check(catalogue.dataset(name), task, workers):
        click.echo(line)


# ---- speed


@cli.group(cls=_Measurements)
def perf() -> None:
    """Measure speed and memory: ratios within one run, on this machine."""


def _perf_command(name: str) -> click.Command:
    measurement = catalogue.load("perf", name)

    def command(**options: Any) -> None:
        for line in measurement(validated(measurement.Config, options)).lines():
            click.echo(line)

    made = click.command(name, help=catalogue.summary("perf", name))(command)
    made.params = [*config_options(measurement.Config)]
    return made


@cli.command()
@click.argument("name")
@click.option("--image-size", type=int, help="Side of the input, px. [default: the method's]")
@click.option("--width", type=float, help="Factor on alexnet's channel counts. [default: 1.0]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(name: str, image_size: int | None, width: float | None, as_json: bool) -> None:
    """Print layers, output shapes and parameters by part of a pretext or an encoder."""
    from pydantic import ValidationError

    from ssl_bench.inspection import describe, inspect_network

    try:
        found = inspect_network(name, image_size=image_size, width=width)
    except ValidationError as error:
        raise refused(error) from error
    click.echo(json.dumps(found, indent=2) if as_json else describe(found))
