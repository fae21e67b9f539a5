"""The real sessions that come with the package: numbers only, see `data/README.md`."""

from importlib import resources
from pathlib import Path

DEMO_KIND = "usage-jsonl"


def demo_path() -> Path:
    """Return the file of recorded sessions, to be imported as `DEMO_KIND`."""
    return Path(str(resources.files("streams.importers").joinpath("data", "demo.jsonl.gz")))


def demo_policy_path() -> Path:
    """Return the policy that is calibrated for those sessions."""
    return Path(str(resources.files("streams.importers").joinpath("data", "demo-policy.toml")))
