"""A policy is checked as a whole: every error at once, each with field, value, what is allowed."""

import pytest

from schemas.fields import Importance
from streams.budget.governance_rules import GovernanceRules
from streams.budget.policy import (
    InvalidPolicyError,
    Policy,
    builtin_policy,
    policy_from_json,
    policy_from_toml,
    policy_json,
)

THREE = "STRATEGIZE, SPEC, PLAN, THINK, IMPLEMENT, VERIFY, REVIEW, PR, MONITOR"


def errors(text: str) -> list[str]:
    with pytest.raises(InvalidPolicyError) as refused:
        policy_from_toml(text, "policy.toml")
    assert str(refused.value) == "\n".join(refused.value.lines())
    return refused.value.lines()


def test_the_built_in_policy_is_the_users_own() -> None:
    policy = builtin_policy()
    assert {
        name: (base.tokens, base.latency_ms, str(base.weight))
        for name, base in policy.phases.items()
    } == {
        "STRATEGIZE": (3000, 60000, "1.5"),
        "SPEC": (1500, 40000, "1"),
        "PLAN": (2000, 50000, "1.2"),
        "THINK": (4000, 90000, "1.5"),
        "IMPLEMENT": (3500, 120000, "1"),
        "VERIFY": (2500, 60000, "0.8"),
        "REVIEW": (2000, 50000, "1"),
        "PR": (1500, 30000, "0.6"),
        "MONITOR": (1000, 20000, "0.6"),
    }
    assert {name: str(factor) for name, factor in policy.complexity.items()} == {
        "tiny": "0.5",
        "small": "0.8",
        "medium": "1",
        "large": "1.5",
    }
    assert {name: str(factor) for name, factor in policy.importance.items()} == {
        "low": "0.7",
        "medium": "1",
        "high": "1.5",
        "critical": "2",
    }
    assert {f"{scope} {metric}": shares for (scope, metric), shares in policy.ladders.items()} == {
        "phase tokens": (9_000, 15_000, 20_000, None),
        "phase latency_ms": (9_000, 15_000, 20_000, None),
        "phase cost_usd": (9_000, 15_000, 20_000, None),
        "task tokens": (9_000, 12_000, 15_000, 20_000),
        "task latency_ms": (9_000, 12_000, 15_000, None),
        "task cost_usd": (9_000, 12_000, 15_000, 20_000),
    }
    assert policy.weights_milli == (1_000, 100, 1_000, 1_000)
    assert policy.closing_phases == ("PR", "MONITOR")
    assert (policy.fail, policy.dedupe_recent) == ("open", 256)
    assert policy.governance == GovernanceRules(
        critical_requires_review=False,
        critical_share_max=0.1,
        review_due_ms=86_400_000,
        expected_share={
            Importance.LOW: 0.15,
            Importance.MEDIUM: 0.6,
            Importance.HIGH: 0.2,
            Importance.CRITICAL: 0.05,
        },
    )
    assert (policy.clock.stuck_after_ms, policy.clock.abandoned_after_ms) == (
        4 * 3_600_000,
        7 * 86_400_000,
    )


def test_a_policy_travels_as_json_and_stays_the_same() -> None:
    for policy in (builtin_policy(), policy_from_toml('version = "ä"', "x.toml")):
        again = policy_from_json(policy_json(policy), "event")
        assert again == policy
        assert policy_json(again) == policy_json(policy)


def test_the_hash_names_the_content_and_not_the_way_it_is_written() -> None:
    same = policy_from_toml("[multipliers.complexity]\nlarge = 1.50\nmedium = 1", "same.toml")
    other = policy_from_toml("[multipliers.complexity]\nlarge = 1.51", "other.toml")
    assert same.hash == builtin_policy().hash != other.hash
    assert len(other.hash) == 16


def test_a_file_with_phases_has_its_own_list_of_them() -> None:
    policy = policy_from_toml(
        "[phases.ONE]\ntokens = 1\nlatency_ms = 1\nweight = 1\n"
        "[phases.MONITOR]\ntokens = 1\nlatency_ms = 1\nweight = 1\n",
        "own.toml",
    )
    assert list(policy.phases) == ["ONE", "MONITOR"]
    assert policy.closing_phases == ("MONITOR",)
    assert policy.lists("ONE")
    assert not policy.lists("THINK")


def test_a_default_lists_every_phase() -> None:
    policy = policy_from_toml(
        "[phases.ONE]\ntokens = 1\nlatency_ms = 1\nweight = 1\n"
        "[phases.default]\ntokens = 2\nlatency_ms = 1\nweight = 1\n",
        "own.toml",
    )
    assert list(policy.phases) == ["ONE"]
    assert policy.lists("THINK")
    assert policy.base("THINK").tokens == 2


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param(
            "[multipliers.complexity]\nlarge = 0",
            [
                (
                    "multipliers.complexity.large: 0 is not allowed; "
                    "use a number above 0, at most 10, with up to 4 decimals"
                )
            ],
            id="a multiplier of 0",
        ),
        pytest.param(
            "[multipliers.importance]\nlow = 10.5\n[multipliers.task_type]\nfix = 1.00001",
            [
                (
                    "multipliers.importance.low: 10.5 is not allowed; "
                    "use a number above 0, at most 10, with up to 4 decimals"
                ),
                (
                    "multipliers.task_type.fix: 1.00001 is not allowed; "
                    "use a number above 0, at most 10, with up to 4 decimals"
                ),
            ],
            id="two errors at once",
        ),
        pytest.param(
            "[phases.ONE]\ntokens = 5",
            [
                (
                    "phases.ONE.latency_ms: 'absent' is not allowed; "
                    "use a whole number from 1 to 1000000000000"
                ),
                (
                    "phases.ONE.weight: 'absent' is not allowed; "
                    "use a number above 0, at most 10, with up to 4 decimals"
                ),
            ],
            id="every listed phase needs a base",
        ),
        pytest.param(
            "phases = 5",
            [
                "phases: 5 is not allowed; use a table",
                "phases: 0 is not allowed; use 1 to 64 phases",
                "closing_phases[0]: 'PR' is not allowed; use different ones of ",
                "closing_phases[1]: 'MONITOR' is not allowed; use different ones of ",
            ],
            id="no table",
        ),
        pytest.param(
            "[phases.task]\ntokens = 1\nlatency_ms = 1\nweight = 1",
            [
                (
                    "phases.task: 'task' is not allowed; "
                    'use a name of 1 to 64 characters other than "task"'
                )
            ],
            id="a phase called task",
        ),
        pytest.param(
            "[phases.ONE]\ntokens = 1\nlatency_ms = 1\nweight = 1\ncost_usd = 0",
            [
                (
                    "phases.ONE.cost_usd: 0 is not allowed; "
                    "use a number above 0, at most 1000000, with up to 9 decimals"
                )
            ],
            id="a cost of nothing",
        ),
        pytest.param(
            'closing_phases = ["PR", "PR", 5]',
            [
                f"closing_phases[1]: 'PR' is not allowed; use different ones of {THREE}",
                f"closing_phases[2]: 5 is not allowed; use different ones of {THREE}",
            ],
            id="closing phases twice",
        ),
        pytest.param(
            "[metered]\ninput = 1e999999999\noutput = -1e-999999999",
            [
                (
                    "metered.input: inf is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
                (
                    "metered.output: -0.0 is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
            ],
            id="exponents that no arithmetic can hold",
        ),
        pytest.param(
            'closing_phases = "PR"',
            [f"closing_phases: 'PR' is not allowed; use different ones of {THREE}"],
            id="closing phases as text",
        ),
        pytest.param(
            "[ladders.task.tokens]\nwarn = 0.9\nblock = 101",
            [
                "ladders.task.tokens.warn: 0.9 is not allowed; use more than the level before it",
                (
                    "ladders.task.tokens.block: 101 is not allowed; "
                    "use a number above 0, at most 100, with up to 4 decimals"
                ),
            ],
            id="a ladder rises",
        ),
        pytest.param(
            'version = ""\nfail = "maybe"\nauto_adjust = 1',
            [
                "version: '' is not allowed; use a text of 1 to 100 characters",
                "fail: 'maybe' is not allowed; use open, closed",
                "auto_adjust: 1 is not allowed; use true or false",
            ],
            id="text, choice, flag",
        ),
        pytest.param(
            "mode = 5\n[clock]\nstuck = 5\nstuck_after_ms = 0\nretention_ms = true",
            [
                "clock.stuck_after_ms: 0 is not allowed; use a whole number from 1 to 315360000000",
                "clock.retention_ms: True is not allowed; use a whole number from 1 to 315360000000",
                (
                    "clock.stuck: 5 is not allowed; use one of: historical_after_ms, execution_max_ms, "
                    "stuck_after_ms, abandoned_after_ms, retention_ms, checkpoint_every_ms"
                ),
                (
                    "mode: 5 is not allowed; use one of: version, fail, auto_adjust, phases, "
                    "closing_phases, metered, multipliers, ladders, clock, dedupe, explanations, "
                    "governance, definitions, alerts"
                ),
            ],
            id="a policy carries no mode, and a misspelt key is an error",
        ),
        pytest.param(
            "[metered]\ninput = 0.0001\noutput = inf\ncache_read = nan\ncache_write = '1'",
            [
                (
                    "metered.input: 0.0001 is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
                (
                    "metered.cache_read: nan is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
                (
                    "metered.cache_write: '1' is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
                (
                    "metered.output: inf is not allowed; "
                    "use a number from 0, at most 100, with up to 3 decimals"
                ),
            ],
            id="weights have three decimals",
        ),
    ],
)
def test_everything_that_is_wrong_is_said_at_once(text: str, lines: list[str]) -> None:
    said = errors(text)
    assert [line.removeprefix("policy.toml: ") for line in said] == lines


@pytest.mark.parametrize(
    "text",
    ["phases", "a = ", "x = 1e99999999999999999999", f"x = {'1' * 5_000}", "[" * 2_000],
    ids=["a name alone", "no value", "a huge exponent", "5,000 digits", "nested"],
)
def test_what_is_no_toml_is_one_error(text: str) -> None:
    (line,) = errors(text)
    assert line.startswith("policy.toml: file: ")
    assert line.endswith("is not allowed; use TOML 1.0")


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"5", b"{", b'{"version": 1e99999999999999999999}', b"{\xff}"]
)
def test_what_is_no_policy_in_json_is_one_error(document: bytes) -> None:
    with pytest.raises(InvalidPolicyError, match=r"use the policy as JSON$"):
        policy_from_json(document, "event")


def test_a_policy_in_json_lacks_nothing() -> None:
    with pytest.raises(InvalidPolicyError) as refused:
        policy_from_json(b"{}", "event")
    assert refused.value.lines()[0] == (
        "event: version: 'absent' is not allowed; use a text of 1 to 100 characters"
    )
    assert len(refused.value.errors) == 14


def test_brackets_in_a_text_are_no_nesting() -> None:
    policy = policy_from_toml(f"version = '{'[' * 50}\\\"{{'", "x.toml")
    assert policy_from_json(policy_json(policy), "event") == policy


def test_a_number_as_long_as_a_book_is_refused_quickly() -> None:
    assert len(errors(f"[metered]\ninput = 0.{'1' * 5_000}")) == 1
    assert len(errors("[metered]\ninput = 1e999999")) == 1
    assert len(errors("[clock]\nstuck_after_ms = 1e999999")) == 1


def test_a_whole_number_may_be_written_with_a_point() -> None:
    policy = policy_from_toml("[clock]\nstuck_after_ms = 5.0", "x.toml")
    assert policy.clock.stuck_after_ms == 5


def test_too_many_phases_and_kinds_of_work_are_refused() -> None:
    phases = "\n".join(f"[phases.P{n}]\ntokens = 1\nlatency_ms = 1\nweight = 1" for n in range(65))
    kinds = "[multipliers.task_type]\n" + "\n".join(f"k{n} = 1" for n in range(257))
    assert errors(f"{kinds}\n{phases}") == [
        "policy.toml: phases: 65 is not allowed; use 1 to 64 phases",
        "policy.toml: multipliers.task_type: 257 is not allowed; use at most 256 factors",
    ]


def test_a_share_that_is_missing_is_one_error_not_two() -> None:
    document = policy_json(builtin_policy()).replace(b'"notice":0.9,', b"", 1)
    with pytest.raises(InvalidPolicyError) as refused:
        policy_from_json(document, "event")
    assert [error.field for error in refused.value.errors] == ["ladders.phase.tokens.notice"]


def test_never_is_null_in_json() -> None:
    assert b'"block":null' in policy_json(builtin_policy())
    assert isinstance(builtin_policy(), Policy)
