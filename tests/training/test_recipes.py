"""Recipes: named settings between the defaults and what is asked for, kept with their version."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from helpers.predictions import LESS, changed, stored
from helpers.refusals import fails
from pretext.simclr import SimCLR, SimCLRConfig
from ssl_bench import catalogue
from ssl_bench.records.command import settings_to_state
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.names import row_names
from ssl_bench.training.config import PretextConfig, Recipe

WARM: dict[str, Any] = {"batch_size": 256, "lr": 0.5, "warmup": 5, "norm": "batch"}


class Config(PretextConfig):
    """One whose recipe names settings that are left out at their defaults."""

    recipes: ClassVar[Mapping[str, Recipe]] = {"warm": Recipe(2, WARM)}


def test_what_is_given_stands_against_the_recipe_and_that_against_the_defaults() -> None:
    config = Config.model_validate({"recipe": "warm", "lr": 0.25})
    assert (config.recipe, config.lr, config.batch_size) == ("warm@2", 0.25, 256)
    assert config.steps == Config().steps


def test_no_recipe_leaves_the_key_as_it_is() -> None:
    assert "recipe" not in Config().model_dump()
    assert "warmup" not in Config().model_dump()


@pytest.mark.parametrize("own", [{}, {"warmup": 0}, {"warmup": 0, "norm": "own", "lr": 1e-4}])
def test_a_record_is_read_and_made_again_as_it_was(own: dict[str, Any]) -> None:
    """Even where a default was asked for against the recipe, which no record would state."""
    config = Config.model_validate({"recipe": "warm", **own})
    record = config.model_dump(mode="json")
    assert Config(**record) == config
    stated = settings_to_state(Config, record)
    assert stated == {"recipe": "warm@2", **own}
    assert Config.model_validate(stated) == config


def test_a_record_of_another_version_is_read_as_it_is() -> None:
    record = Config().model_dump(mode="json") | {"recipe": "warm@1", "lr": 0.75}
    config = Config(**record)
    assert (config.recipe, config.lr, config.batch_size) == ("warm@1", 0.75, 128)
    assert Config(**settings_to_state(Config, record)) == config


@pytest.mark.parametrize("name", ["warn", "warm@1", "@", ""])
def test_what_stands_for_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"unknown recipe .*warm@2"):
        Config.model_validate({"recipe": name})


def test_the_command_line(bench, tmp_path) -> None:
    where = ("--workspace", tmp_path, "--workers", 0, "--data", "scenes:train=8,test=4")
    small = ("--arch", "timm:test_efficientnet", "--steps", 1, "--batch-size", 4)
    fails(
        bench("pretrain", "simclr", "--recipe", "smal", *where),
        2,
        "unknown recipe 'smal'",
        "did you mean small@1",
    )
    fails(
        bench("pretrain", "autoencoder", "--recipe", "small", *where),
        2,
        "unknown recipe 'small'",
        "known: none",
    )
    bench.ok("pretrain", "simclr", "--recipe", "small", "--projector", 16, *small, *where)
    (run,) = read_records(tmp_path, "pretrain")
    assert run.identity.config["recipe"] == "small@1"
    shown = bench.ok("show", run.key, "--workspace", tmp_path).out
    assert "--recipe small@1" in shown
    assert "--weight-decay" not in shown
    again = bench.ok("rerun", run.key, "--workers", 0, "--workspace", tmp_path)
    assert again.out.endswith("bit for bit\n")


def test_rows_name_the_recipe_and_what_deviates_from_it(tmp_path) -> None:
    """Without a second row to be told apart from; the stem stands there, too."""
    settings = {"recipe": "small", "seed": 0, "lr": 0.1, "stem": "small"}
    config = SimCLRConfig.model_validate(settings).model_dump(mode="json")
    record = changed(stored(tmp_path, "simclr", LESS), details={"pretraining": config})
    assert row_names([record]) == ["simclr small@1 small stem lr=0.1"]


@pytest.mark.parametrize("name", catalogue.names("pretext"))
def test_every_recipe_is_valid(name: str) -> None:
    kind: Any = catalogue.pretext(name).Config
    for recipe in getattr(kind, "recipes", {}):
        assert kind(recipe=recipe).named(recipe) is not None


def test_the_published_defaults_of_simclr() -> None:
    """LARS at 4.8 for 4,096 images, behind ten epochs' warm-up (Chen et al. 2020, section 2.2)."""
    config = SimCLR.Config()
    assert isinstance(config, SimCLRConfig)
    assert config.rate == pytest.approx(4.8)
    assert config.warmup == 3127
    assert SimCLRConfig(steps=100, batch_size=256).rate == pytest.approx(0.3)
    assert SimCLRConfig(steps=100).warmup == 10
