"""Which test tries what: for the page about reliability, and for whoever looks for a gap.

A place is a file of `tests/`, with `::` and the name of a test where it is one among many.
"""

SIMULATION = "simulation/test_histories.py::test_every_fault_has_really_happened"
RUN = "faults/test_faults_short.py"
UPSTREAM = "faults/test_upstream.py"
RESTORE = "faults/test_restore.py"
EMITTER = "integration/test_client_emitter.py"
DRAINING = "test_a_process_killed_while_its_spool_drains_loses_nothing_and_reorders_nothing"
REPEATED = "test_a_producer_that_hears_no_answer_repeats_itself_and_it_stands_there_once"
RECOVER = "integration/test_recover.py"

AGENTS = "integration/test_agents.py"
AGENT_KILLED = "integration/test_agents_alerts.py"
REPORTS = "integration/test_agents_reports.py"
VIEW = "integration/test_view_faults.py"

CLAIMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a ledger is killed at any moment, and at each named place of a commit", (RUN, SIMULATION)),
    ("a failpoint is armed by the environment alone", ("unit/kafka/test_failpoints.py",)),
    ("a ledger is stopped past its session, and goes on as a zombie", (RUN, SIMULATION)),
    ("ledgers come and go in the middle of transactions", (RUN, SIMULATION)),
    (
        "the broker is killed and comes back",
        (
            RUN,
            "integration/test_ledger_faults.py::test_a_ledger_waits_for_a_broker_that_is_away",
        ),
    ),
    ("connections are cut or stall, for seconds and longer than a transaction may last", (RUN,)),
    ("the disk quota of a spool is used up", (RUN,)),
    (
        "an enforcer is killed, its spool full or half sent",
        (
            RUN,
            f"{EMITTER}::{DRAINING}",
        ),
    ),
    ("events come twice, late, in another order, and are none", (RUN, SIMULATION)),
    (
        "an idempotent producer has to repeat itself",
        (f"{UPSTREAM}::{REPEATED}",),
    ),
    (
        "the same event comes live and from the spool",
        (
            f"{UPSTREAM}::test_what_was_sent_live_and_again_from_the_spool_counts_once",
            f"{UPSTREAM}::test_what_was_sent_and_comes_again_from_the_spool_counts_once",
        ),
    ),
    (
        "`tasks` is compacted while somebody restores",
        (
            f"{RESTORE}::test_compaction_under_a_restore_changes_nothing_of_what_is_restored",
            f"{RESTORE}::test_when_deletions_are_gone_as_well_nothing_comes_back",
            SIMULATION,
        ),
    ),
    (
        "a restore is broken off, and begins again",
        (
            f"{RESTORE}::test_who_dies_while_it_restores_leaves_everything_to_the_next",
            SIMULATION,
        ),
    ),
    (
        "a record of `tasks` is torn, or somebody else's, or an older one",
        (
            f"{RECOVER}::test_a_torn_record_stops_its_partition_until_it_is_rebuilt",
            f"{RECOVER}::test_a_foreign_record_stops_its_partition_until_it_is_deleted",
            f"{RECOVER}::test_an_older_record_of_the_partition_that_comes_again_is_found_out",
            f"{RECOVER}::test_without_the_first_events_it_says_that_it_cannot",
        ),
    ),
    (
        "a reader loses some of what it has read",
        ("simulation/test_histories.py", "integration/test_kafka_session.py"),
    ),
    (
        "events are deleted before they are folded, at the start or out of the middle",
        ("integration/test_ledger_faults.py", "faults/test_gone.py"),
    ),
    ("`tasks` is emptied, or made anew", ("integration/test_tasks_lost.py",)),
    (
        "an operator loses the group's offsets, or sets them back",
        ("faults/test_group_offsets.py",),
    ),
    (
        "agents are killed, at any moment and at each named place of a batch",
        (
            RUN,
            f"{AGENTS}::test_a_crash_anywhere_is_not_seen_in_what_comes_out",
            f"{AGENT_KILLED}::test_who_is_killed_again_and_again_says_what_one_says_who_is_not",
            f"{REPORTS}::test_reports_of_agents_that_were_killed_are_those_of_a_calm_run",
        ),
    ),
    (
        "the view is killed",
        (
            RUN,
            f"{VIEW}::test_a_view_that_is_killed_again_and_again_shows_what_one_shows_that_was_not",
        ),
    ),
    (
        "Redis is killed, comes back older, is full, or is emptied",
        (
            RUN,
            f"{VIEW}::test_a_redis_that_goes_away_and_comes_back_misses_nothing",
            f"{VIEW}::test_a_redis_that_comes_back_older_is_brought_up_from_there",
            f"{VIEW}::test_a_redis_that_is_full_is_waited_for",
            f"{VIEW}::test_a_redis_that_was_emptied_is_filled_again_by_itself",
        ),
    ),
    (
        "somebody sets back, deletes or overwrites how far the view is",
        (f"{VIEW}::test_what_says_how_far_the_view_is_is_not_changed_unnoticed",),
    ),
    (
        "somebody deletes or overwrites other keys of the view",
        (
            RUN,
            f"{VIEW}::test_keys_that_somebody_else_has_written_to_are_built_anew",
            f"{VIEW}::test_an_execution_whose_earlier_word_was_overwritten_is_read_anew",
            f"{VIEW}::test_a_value_that_was_changed_is_not_found_out_and_a_rebuild_mends_it",
        ),
    ),
    (
        "the judges see it when something is wrong",
        (
            "simulation/test_histories.py::test_a_broken_promise_is_found_out",
            "faults/test_check.py",
            "faults/test_told.py",
            "integration/test_verify.py::test_damage_is_found_and_named",
            "integration/test_verify_independent.py::test_damage_is_found_and_named",
        ),
    ),
)
