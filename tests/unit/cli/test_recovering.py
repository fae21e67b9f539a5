"""What `stoploss recover` says that it has written, when it could not come to its end."""

from streams.cli.recovering import Progress, Write

OWN = b"partition/3"
FIRST: list[Write] = [(OWN, None), (b"TASK-1", b"{}"), (b"TASK-2", b"{}")]
LAST: list[Write] = [(OWN, b"{}")]
NOTHING = "nothing was written: try again"
IN_DOUBT = "it is not known whether anything was written: try again"
FIRST_ONLY = (
    "2 records were written, and no ledger goes on before partition/3, which comes last: try again, and "
    "what is missing is written"
)


def test_what_was_refused_is_not_written() -> None:
    progress = Progress(OWN)
    assert (str(progress), progress.has_none) == (NOTHING, True)
    progress.begins(LAST)
    progress.refused()
    assert (str(progress), progress.has_none) == (NOTHING, True)


def test_what_was_committed_is_written_also_where_what_comes_after_it_is_refused() -> None:
    progress = Progress(OWN)
    progress.begins(FIRST)
    progress.committed()
    progress.begins(LAST)
    progress.refused()
    assert (str(progress), progress.has_none) == (FIRST_ONLY, False)
    assert progress.keys == ["TASK-1", "TASK-2"]


def test_what_nobody_has_confirmed_is_in_doubt_until_somebody_has_looked() -> None:
    progress = Progress(OWN)
    progress.begins(LAST)
    assert (str(progress), progress.has_none) == (IN_DOUBT, False)
    progress.reads(missing=LAST)
    assert (str(progress), progress.has_none) == (NOTHING, True)
    progress.begins(FIRST)
    progress.reads(missing=LAST)
    assert (str(progress), progress.keys) == (FIRST_ONLY, ["TASK-1", "TASK-2"])
