"""The demo plays every event once, each family in the order of its log."""

from collections import defaultdict

from schemas.fields import Verdict
from streams.budget.policy import policy_from_toml
from streams.cli.demo import recorded_sessions
from streams.importers.base import import_events
from streams.importers.demo import DEMO_KIND, demo_path, demo_policy_path
from streams.replay.offline import replay


def test_it_begins_at_once_and_never_goes_back() -> None:
    times_s = [one.at_s for one in recorded_sessions()]
    assert times_s[0] == 0.0
    assert times_s == sorted(times_s)


def test_a_family_keeps_the_order_of_its_log() -> None:
    played: dict[str, list[str]] = defaultdict(list)
    logged: dict[str, list[str]] = defaultdict(list)
    for one in recorded_sessions():
        played[one.event.partitionkey or one.event.subject].append(one.event.id)
    for event in import_events(DEMO_KIND, [demo_path()]):
        logged[event.partitionkey or event.subject].append(event.id)
    assert played == logged


def test_its_policy_lets_most_go_on_and_shows_a_block() -> None:
    policy = policy_from_toml(demo_policy_path().read_text(), "demo-policy.toml")
    verdicts = replay((one.event for one in recorded_sessions()), policy).summary.verdicts
    total = sum(verdicts.values())
    assert verdicts[Verdict.CONTINUE] > total / 2
    assert all(verdicts[each] for each in (Verdict.NOTICE, Verdict.REVIEW, Verdict.BLOCK))
    assert verdicts[Verdict.BLOCK] < total / 10
