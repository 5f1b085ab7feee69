"""The `bench` command: thin, and quick to answer; torch is imported inside commands only."""

import sys

import click

from ssl_bench import catalogue
from ssl_bench.cli.data import data
from ssl_bench.cli.groups import SuggestingGroup
from ssl_bench.cli.look import diagnose, figures, inpaint, inspect, perf, plot
from ssl_bench.cli.make import (
    evaluation_command,
    evaluation_commands,
    export,
    import_,
    pretrain,
    run,
)
from ssl_bench.cli.read import compare, protocols, report, rerun, runs, show, site, table, verify
from ssl_bench.cli.take import export_mteb, export_onnx, save_pretrained
from ssl_bench.errors import BenchError, plain
from ssl_bench.launch import lost_connection
from ssl_bench.threads import set_threads

COMMANDS = (
    pretrain, run, export, import_, runs, table, report, site, compare, show, rerun, verify,
    protocols, inpaint, figures, plot, data, perf, inspect, diagnose, save_pretrained, export_onnx,
    export_mteb,
)  # fmt: skip


class BenchGroup(SuggestingGroup):
    """The top level: commands of ours and one per evaluation."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *evaluation_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is None and cmd_name in evaluation_commands():
            return evaluation_command(cmd_name)
        return own

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(n, self.commands[n].get_short_help_str(90)) for n in sorted(self.commands)]
            )
        with formatter.section("Evaluations"):
            formatter.write_dl([(n, catalogue.summary("eval", n)) for n in evaluation_commands()])


@click.group(cls=BenchGroup, context_settings={"help_option_names": ["-h", "--help"]})
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


for each in COMMANDS:
    cli.add_command(each)


def main() -> None:
    """Run `bench`; a BenchError becomes one line and its exit code, unless `--debug`."""
    set_threads()
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
    except RuntimeError as error:
        if "--debug" in sys.argv or not (line := lost_connection(error)):
            raise
        click.echo(f"bench: {line}", err=True)
        sys.exit(1)


def _system_error(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    said = error.strerror or str(error)
    return said.rstrip().splitlines()[-1] + where  # of a loader's process it is a whole traceback
