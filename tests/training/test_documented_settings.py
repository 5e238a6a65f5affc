"""The page on training lists every setting with its default, and its recipe is one that can be read."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from inpaint_batch.models.spec import DcfSpec
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.losses.weights import LossWeights

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (?:`([^`]+)`|(unset)) \| \S", re.MULTILINE)


def plain(value: Any) -> Any:
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {
        name: None if unset else tomllib.loads(f"value = {default}")["value"]
        for name, default, unset in ROW.findall(PAGE)
    }
    defaults: dict[str, Any] = {}
    for settings in (TrainConfig(), LossWeights(), DcfSpec()):
        defaults |= {field.name: plain(getattr(settings, field.name)) for field in fields(settings)}
    del defaults["model"], defaults["losses"]  # tables of their own
    assert documented == defaults


def test_the_recipe_can_be_read() -> None:
    recipes = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert recipes
    for recipe in recipes:
        TrainConfig.from_dict(tomllib.loads(recipe))
