"""That Redis is away is said once, and once that it is back."""

from streams.view.run import Outage


def test_an_outage_is_told_once_however_often_it_is_tried_meanwhile() -> None:
    told: list[str] = []
    outage = Outage(told.append)
    outage.ends()
    for _ in range(2):
        assert outage.begins("Redis at redis://here: connection closed")
        assert not outage.begins("Redis at redis://here: connection refused")
        outage.ends()
        outage.ends()
    assert (
        told
        == [
            "Redis at redis://here: connection closed; until it is back, commands read the topics",
            "Redis is back, and the view follows again",
        ]
        * 2
    )


def test_where_nobody_wants_to_be_told_it_is_new_all_the_same() -> None:
    outage = Outage()
    assert [outage.begins("away"), outage.begins("away")] == [True, False]
