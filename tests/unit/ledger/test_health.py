"""How the ledger is, from what its parts report."""

from streams.ledger.health import Health, LedgerHealth


def state_of(health: LedgerHealth) -> Health:
    """Ask anew: mypy believes that a state which was compared once stays."""
    return health.state


def test_it_runs_while_nobody_waits() -> None:
    health = LedgerHealth()
    assert state_of(health) is Health.STARTING
    health.back("group")
    assert state_of(health) is Health.RUNNING


def test_it_waits_until_the_last_part_is_back() -> None:
    health = LedgerHealth()
    health.away("partition 0", "no broker")
    health.away("partition 1", "no broker")
    health.back("partition 0")
    assert state_of(health) is Health.WAITING_FOR_KAFKA
    health.back("partition 1")
    assert state_of(health) is Health.RUNNING


def test_a_partition_that_fails_again_and_again_is_seen_until_it_commits() -> None:
    health = LedgerHealth()
    health.still("partition 3", "a torn record")
    health.back("partition 3")
    assert (health.state, health.reasons) == (
        Health.STANDING_STILL,
        {"partition 3": "a torn record"},
    )
    health.moving("partition 3")
    assert state_of(health) is Health.RUNNING


def test_what_was_released_is_nobodys_matter_any_more() -> None:
    health = LedgerHealth()
    health.still("partition 3", "a torn record")
    health.away("partition 3", "no broker")
    health.gone("partition 3")
    assert (health.state, health.reasons) == (Health.RUNNING, {})


def test_no_other_state_comes_after_stopping() -> None:
    health = LedgerHealth()
    health.stopping()
    health.away("group", "no broker")
    assert state_of(health) is Health.STOPPING


def test_who_ends_late_takes_nothing_of_its_successor_with_it() -> None:
    health = LedgerHealth()
    late = health.part("partition 3")
    late.still("a torn record")
    successor = health.part("partition 3")
    assert health.reasons == {}, "what the late one waited for is nobody's matter any more"
    successor.still("another torn record")
    late.away("no broker")
    late.moving()
    late.gone()
    assert health.reasons == {"partition 3": "another torn record"}
    successor.gone()
    assert (state_of(health), health.reasons) == (Health.RUNNING, {})
