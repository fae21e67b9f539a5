"""Changes become commands: bounded, and not more of them than needed."""

from streams.view.changes import ARGUMENTS_MAX, Changes
from streams.view.keys import FEED_RECORDS, TASK_RECORDS


def test_nothing_changed_asks_for_nothing() -> None:
    assert list(Changes().commands()) == []


def test_the_last_word_about_a_field_is_the_one_that_is_said() -> None:
    changes = Changes()
    for value in (b"1", None, b"2"):
        changes.set_field(b"key", b"field", value)
    changes.set_field(b"key", b"other", None)
    assert list(changes.commands()) == [
        [b"HSET", b"key", b"field", b"2"],
        [b"HDEL", b"key", b"other"],
    ]


def test_of_a_list_no_more_is_sent_than_is_kept() -> None:
    changes = Changes()
    for number in range(3 * TASK_RECORDS):
        changes.push(b"key", b"%d" % number)
    pushed, trimmed = changes.commands()
    assert pushed[2:] == [b"%d" % number for number in range(2 * TASK_RECORDS, 3 * TASK_RECORDS)]
    assert trimmed == [b"LTRIM", b"key", b"%d" % -TASK_RECORDS, b"-1"]


def test_of_a_feed_the_latest_times_are_sent_however_many_come() -> None:
    changes = Changes()
    for at_ms in reversed(range(6 * FEED_RECORDS)):
        changes.feed(b"key", at_ms, b"%d" % at_ms)
    *added, trimmed = changes.commands()
    sent = {int(at) for command in added for at in command[2::2]}
    assert sent == set(range(5 * FEED_RECORDS, 6 * FEED_RECORDS))
    assert trimmed == [b"ZREMRANGEBYRANK", b"key", b"0", b"%d" % -(FEED_RECORDS + 1)]


def test_what_is_added_and_taken_away_in_one_read_is_not_said() -> None:
    changes = Changes()
    changes.count(b"key", b"field", 3)
    changes.count(b"key", b"field", -3)
    assert list(changes.commands()) == []


def test_a_command_has_no_more_arguments_than_lua_takes() -> None:
    changes = Changes()
    for number in range(2 * ARGUMENTS_MAX):
        changes.score(b"key", b"%d" % number, 1.0)
    sizes = [len(command) for command in changes.commands()]
    assert max(sizes) <= ARGUMENTS_MAX + 2
    assert sum(size - 2 for size in sizes) == 4 * ARGUMENTS_MAX


def test_the_latest_end_of_a_key_counts() -> None:
    changes = Changes()
    for at_s in (5, 9, 7):
        changes.expire(b"key", at_s)
    assert list(changes.commands()) == [[b"EXPIREAT", b"key", b"9"]]
