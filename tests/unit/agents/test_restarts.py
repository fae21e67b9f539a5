"""How often workers were replaced, whoever replaced them."""

from streams.agents.restarts import Restarts, together


def test_what_the_supervisors_of_several_hosts_say_is_told_together() -> None:
    told = [
        Restarts(
            agent="a", host="one", since_ms=5_000, count=2, last_ms=9_000, why="ended with -9"
        ),
        Restarts(agent="a", host="two", since_ms=7_000, count=1, last_ms=8_000, why="ended with 1"),
        Restarts(agent="a", host="three", since_ms=6_000),
        Restarts(agent="b", host="one", since_ms=5_000),
    ]
    for order in (told, told[::-1]):
        found = together(order)
        both = found["a"]
        assert (both.count, both.since_ms, both.last_ms) == (3, 5_000, 9_000)
        assert both.why == "ended with -9"
        assert (found["b"].count, found["b"].why) == (0, None)
    assert together([]) == {}
