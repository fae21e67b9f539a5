"""`stoploss.toml.example` has every setting, with its default."""

import re
import tomllib
from pathlib import Path

from streams.kafka.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / "stoploss.toml.example"


def test_the_example_as_it_is_changes_nothing() -> None:
    assert load_settings({}, EXAMPLE) == Settings()


def test_the_example_names_every_setting_and_writes_out_every_default() -> None:
    text = EXAMPLE.read_text()
    named = re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE)
    written = tomllib.loads(text).keys()
    defaults = {
        name for name in Settings.__struct_fields__ if getattr(Settings(), name) is not None
    }

    assert named == list(Settings.__struct_fields__)
    assert written == defaults
