"""A policy's text says its numbers and what they rest on, and is a policy again."""

from streams.budget.policy import builtin_policy, policy_from_toml
from streams.insight.policy_text import toml


def test_comments_stand_beside_what_they_are_about() -> None:
    text = toml(
        {"version": "v", "phases": {"THINK": {"tokens": 1}}},
        {"phases.THINK.tokens": "was 2", "phases.THINK": "a phase"},
        ["made by hand", "today"],
    )
    assert text == (
        "# made by hand\n"
        "# today\n"
        "\n"
        'version = "v"\n'
        "\n"
        "[phases.THINK]                          # a phase\n"
        "tokens = 1                              # was 2\n"
    )


def test_a_comment_cannot_end_its_line() -> None:
    assert toml({"a": 1}, {"a": 'x\nfail = "closed"'}).count("\n") == 1


def test_a_commented_policy_is_the_same_policy() -> None:
    policy = builtin_policy()
    comments = {"phases.THINK.tokens": "why", "multipliers.complexity.tiny": "because"}
    text = toml(policy.document, comments, ["head"])
    assert policy_from_toml(text, "test").hash == policy.hash
