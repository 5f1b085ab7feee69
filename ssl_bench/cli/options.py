"""The options of `bench`: those that commands share, and those made from a model's fields."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from ssl_bench.cli.groups import Setting
from ssl_bench.errors import UsageError, complaint

if TYPE_CHECKING:
    from ssl_bench.runtime import Runtime

# Of the files that are written into folders.
FILES = {".png", ".jpg", ".pdf", ".svg", ".html", ".md", ".csv", ".tex", ".safetensors"}


class OutFolder(click.Path):
    """A folder to write into, new or old; refused is a new one that is called as a file is."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)  # an old file is refused by what would write into it

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The Path."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if path.suffix.lower() in FILES and not path.is_dir():
            self.fail(f"'{path}' is a file's name: give a folder, which may be new", param, ctx)
        return path


workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder that holds runs and records.",
)
out_option = click.option(
    "--out", type=OutFolder(), help="Folder for table.md, table.csv and table.tex."
)
family_option = click.option(
    "--suite", help="Suite that says which differences are tested. [default: family.json's]"
)
data_part_option = click.option(
    "--data", multiple=True, help="Only of this set, by the name that tables print; several times."
)
protocol_part_option = click.option(
    "--protocol", "protocols", multiple=True,
    help="Only this one, with its version or without; several times.",
)  # fmt: skip
method_part_option = click.option(
    "--method", "methods", multiple=True,
    help="Only this method, or row as the table calls it; several times.",
)  # fmt: skip
feature_memory_option = click.option(
    "--feature-memory",
    type=click.IntRange(0),
    help="MiB of frozen features kept in memory; more go to files in the cache.  [default: 1024, "
    "or a third of a GPU's]",
)


def computing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that computes."""
    options = [
        workspace_option,
        click.option("--workers", type=click.IntRange(0), default=2, show_default=True,
                     help="Processes that decode images, which each set needs once."),
        click.option("--checkpoint-every", default="300s", show_default=True,
                     help="Steps between checkpoints, or seconds as in 60s."),
        click.option("--skip-bad-images", is_flag=True,
                     help="Leave out and count images that cannot be used, instead of stopping."),
        click.option("--log", metavar="TRACKER,…",
                     help="Tell trainings' courses to tensorboard, wandb, mlflow or trackio, too."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


finished_option = click.option(
    "--finished", is_flag=True, help="Take what is finished of the suite, and compute nothing."
)


seeds_option = click.option(
    "--seeds", type=click.IntRange(1), help="Seeds 0 … N−1 in place of the suite's own."
)


def devices_option(default: str) -> click.Option:
    """The option of every command that trains."""
    return click.Option(
        ["--devices"],
        default=default,
        show_default=True,
        help="Number of processes or GPUs; auto: all GPUs, else one CPU process.",
    )


def runtime_of(
    workers: int,
    checkpoint_every: str,
    devices: str = "1",
    feature_memory: int | None = None,
    log: str | None = None,
    **_: Any,
) -> "Runtime":
    """Suites and probes run in one process; trainings spread over devices."""
    from ssl_bench.runtime import Runtime, stay_alone
    from ssl_bench.training.log import check_trackers

    trackers = tuple(dict.fromkeys(log.split(","))) if log else ()
    check_trackers(trackers)

    if devices != "auto" and not re.fullmatch("0*[1-9][0-9]{0,3}", devices):
        raise UsageError(f"--devices takes auto or a number from 1, not '{devices}'")
    number = checkpoint_every.removesuffix("s")
    if not re.fullmatch("0*[1-9][0-9]{0,8}", number):
        raise UsageError(
            f"--checkpoint-every takes steps or seconds (60s), not '{checkpoint_every}'"
        )
    if devices.lstrip("0") == "1":
        devices = "1"
        stay_alone()
    unit = "checkpoint_seconds" if checkpoint_every.endswith("s") else "checkpoint_steps"
    every: dict[str, Any] = {unit: int(number)}
    return Runtime(workers, devices, feature_memory_mb=feature_memory, log=trackers, **every)


class _Numbers(click.ParamType):
    """Several numbers with commas between them: `1,2,4`."""

    name = "numbers"

    def __init__(self, kind: Callable[[str], float]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(map(self.kind, value.split(",")))
        except ValueError:
            self.fail(f"'{value}' is not numbers with commas between them, as in 1,2,4", param, ctx)


def course_options() -> list[click.Option]:
    """Those of a pretraining by steps: which encoders are kept, how far it goes, who looks on."""
    keep_at = click.Option(
        ["--keep-at"], type=_Numbers(int), multiple=True, callback=_joined,
        help="Steps after which the encoder is kept, as METHOD@KEY:STEP: 500,1000,2000.",
    )  # fmt: skip
    until = click.Option(
        ["--until"], type=click.IntRange(1),
        help="Rest after this step, which is kept; without it the same command goes on.",
    )  # fmt: skip
    probe = click.Option(
        ["--probe"],
        help="Look at the encoder while it is trained, by a probe such as knn.lightly, on a part "
        "of the training images: for the log, on which nothing depends.",
    )
    every = click.Option(
        ["--probe-every"], type=click.IntRange(1), default=5, show_default=True,
        help="Epochs from one look of --probe to the next.",
    )  # fmt: skip
    return [keep_at, until, probe, every]


def _joined(_context: Any, _param: Any, given: tuple[tuple[float, ...], ...]) -> Any:
    """The numbers of an option that was given several times; None, the default, if it was not."""
    return tuple(number for numbers in given for number in numbers) or None


def config_options(config: Any) -> list[click.Option]:
    """One option per field of a pydantic model, with its phrase and default.

    Of a field with several values it may be given several times, or once with commas.
    """
    options: list[click.Option] = []
    defaults: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        # One may follow from those above it.
        defaults[name] = field.get_default(call_default_factory=True, validated_data=defaults)
        kind: Any = field.annotation
        text = f"{field.description}."
        text, flag = text[0].upper() + text[1:], "--" + name.replace("_", "-")
        if kind is bool:  # unset is None: the default stays the model's
            options.append(click.Option([flag], is_flag=True, flag_value=True, default=None,
                                        help=text))  # fmt: skip
            continue
        if get_origin(kind) is UnionType:  # None: not set
            kind = next(k for k in get_args(kind) if k is not NoneType)
        if get_origin(kind) is Literal:
            kind = click.Choice(get_args(kind))
        shown = f"{text} [default: {_default_text(defaults[name])}]"
        if get_origin(kind) is tuple:
            options.append(click.Option([flag], type=_Numbers(get_args(kind)[0]), multiple=True,
                                        callback=_joined, help=shown))  # fmt: skip
            continue
        options.append(Setting([flag], type=kind, help=shown))
    return options


def validated(config: Any, values: Mapping[str, Any]) -> Any:
    """The validated settings; UsageError names the option and what is wrong with it."""
    from pydantic import ValidationError

    given = {k: v for k, v in values.items() if k in config.model_fields and v is not None}
    try:
        return config(**given)
    except ValidationError as error:
        raise refused(error) from error


def refused(error: Any) -> UsageError:
    """The first mistake of a ValidationError; what was given is said of one setting alone."""
    first = error.errors()[0]
    option = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else ""
    given = f", not {first['input']}" if option else ""
    return UsageError(complaint(first, option) + given)


def variant_options(variants: Mapping[str, Any]) -> list[click.Parameter]:
    """`--protocol`, where there is a choice, and the settings of all; equal names come once."""
    if len(variants) == 1:
        return [*config_options(next(iter(variants.values())).Config)]
    choice = click.Option(
        ["--protocol"],
        type=click.Choice(list(variants)),
        default=next(iter(variants)),
        show_default=True,
        help="; ".join(f"{n}: {v.protocol}" for n, v in variants.items()) + ".",
    )
    options: dict[str, click.Option] = {}
    for variant in variants.values():
        for option in config_options(variant.Config):
            options.setdefault(str(option.name), option)
    for name, option in options.items():
        own = {n: v.Config.model_fields[name] for n, v in variants.items()
               if name in v.Config.model_fields}  # fmt: skip
        defaults = {n: _default_text(field.default) for n, field in own.items()}
        if len(own) < len(variants) or len(set(defaults.values())) > 1:
            phrase = next(iter(own.values())).description or ""
            each = "; ".join(f"{n}: {text}" for n, text in defaults.items())
            option.help = f"{phrase[:1].upper()}{phrase[1:]}. [default: {each}]"
    return [choice, *options.values()]


def _default_text(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def chosen_harness(variants: Mapping[str, Any], protocol: str, options: Mapping[str, Any]) -> Any:
    """The chosen protocol with its settings; UsageError for a setting of another one."""
    variant = variants[protocol]
    for other in variants.values():
        for name in other.Config.model_fields:
            if options.get(name) is not None and name not in variant.Config.model_fields:
                raise UsageError(
                    f"--{name.replace('_', '-')} belongs to {other.protocol}, not to "
                    f"{variant.protocol}"
                )
    return variant(validated(variant.Config, options))
