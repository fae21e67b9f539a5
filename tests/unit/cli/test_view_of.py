"""Which Redis is meant, and when what it shows is too old."""

from pathlib import Path

import pytest

from streams.cli.facts import AnsweredFrom, From
from streams.cli.place import Place
from streams.cli.show import source_text
from streams.cli.view import TOO_OLD_MS, redis_urls, too_old
from streams.kafka.settings import load_settings
from streams.view.answers import Freshness
from streams.view.meta import State

DEFAULT = "redis://127.0.0.1:6379/0"
NAMED, LOCAL = "redis://named:6379/0", "redis://127.0.0.1:4242/0"


@pytest.mark.parametrize(
    ("named", "folder", "local", "meant"),
    [
        pytest.param(None, None, None, [(DEFAULT, False)], id="nobody has named one"),
        pytest.param(NAMED, None, None, [(NAMED, True)], id="a setting"),
        pytest.param(None, Path("data"), LOCAL, [(LOCAL, True)], id="that of the data folder"),
        pytest.param(NAMED, Path("data"), LOCAL, [(NAMED, True), (LOCAL, True)], id="both"),
        pytest.param(None, Path("data"), None, [], id="a data folder without one"),
    ],
)
def test_a_setting_names_redis_and_the_data_folder_may_have_one(
    named: str | None,
    folder: Path | None,
    local: str | None,
    meant: list[tuple[str, bool]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STOPLOSS_REDIS_URL", raising=False)
    if named is not None:
        monkeypatch.setenv("STOPLOSS_REDIS_URL", named)
    place = Place(settings=load_settings(), folder=folder, redis_url=local)
    assert redis_urls(place) == meant


def freshness(age_ms: int | None, state: State = State.FOLLOWING) -> Freshness:
    return Freshness(
        state=state,
        shown=None,
        age_ms=age_ms,
        lag=0,
        cluster="C",
        why="asked for",
        partitions=[],
        unreadable={},
    )


@pytest.mark.parametrize(
    ("found", "why"),
    [
        pytest.param(freshness(TOO_OLD_MS), None, id="as old as it may be"),
        pytest.param(freshness(TOO_OLD_MS + 1_000), "the view is 11 s old", id="older"),
        pytest.param(
            freshness(None, State.REBUILDING),
            "the view is being rebuilt (asked for)",
            id="a rebuild has no age",
        ),
    ],
)
def test_a_view_is_too_old_after_ten_seconds_and_while_it_is_rebuilt(
    found: Freshness, why: str | None
) -> None:
    assert too_old(found) == why


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (AnsweredFrom(part=From.VIEW, age_ms=312), "from the view, 0.3 s old"),
        (
            AnsweredFrom(part=From.TOPICS, age_ms=0, why="Redis does not answer\n"),
            "from the topics: Redis does not answer�",
        ),
    ],
)
def test_one_line_says_where_an_answer_comes_from(source: AnsweredFrom, line: str) -> None:
    assert source_text(source).plain == line
