"""What a client sends next: order per record, and sending again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tradepool.client.schedule import POSTPONED_MAX, Schedule
from tradepool.client.spool import SpoolEntry


def entry(seq: int, record: str, queue: str = "trades", beside: str | None = None) -> SpoolEntry:
    return SpoolEntry(seq, f"command-{seq}", queue, record, None, beside)


def schedule_of(*entries: SpoolEntry) -> Schedule:
    schedule = Schedule(resend_s=10)
    for item in entries:
        schedule.add(item)
    return schedule


def test_the_commands_of_one_record_may_share_a_message():
    schedule = schedule_of(entry(1, "a"), entry(2, "b"), entry(3, "a"))
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [1, 2, 3]


def test_a_records_next_command_waits_until_the_one_before_it_has_finished():
    schedule = schedule_of(entry(1, "a"), entry(2, "a"), entry(3, "b"), entry(4, "a"))
    (first,) = schedule.next_batch(1, now_s=0)
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [3]
    schedule.finish(first)
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [2, 4]


def test_what_comes_first_goes_at_once_and_what_comes_meanwhile_is_gathered():
    schedule = schedule_of(entry(1, "a"))
    assert schedule.is_worth_sending(2)
    (first,) = schedule.next_batch(2, now_s=0)
    schedule.add(entry(2, "b"))
    assert not schedule.is_worth_sending(2)
    schedule.add(entry(3, "c"))
    assert schedule.is_worth_sending(2)
    schedule.finish(first)
    assert schedule.is_worth_sending(10)


def test_a_message_has_one_queue_and_the_other_is_not_forgotten():
    schedule = schedule_of(entry(1, "a"), entry(2, "ledger", "tokens"), entry(3, "b"))
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [1, 3]
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [2]


def test_what_is_not_confirmed_is_sent_again_less_and_less_often():
    schedule = schedule_of(entry(1, "a"))
    schedule.next_batch(10, now_s=0)
    assert schedule.overdue(10, now_s=9) == []
    assert [e.seq for e in schedule.overdue(10, now_s=10)] == [1]
    assert schedule.overdue(10, now_s=29) == []
    assert [e.seq for e in schedule.overdue(10, now_s=30)] == [1]
    schedule.postpone([], now_s=100)
    assert schedule.overdue(10, now_s=109) == []


def test_what_waits_behind_a_queue_that_stays_long_is_sent_again_in_the_end():
    schedule = schedule_of(entry(1, "a"), entry(2, "b"))
    schedule.next_batch(10, now_s=0)
    for turn in range(1, POSTPONED_MAX + 1):
        again = schedule.overdue(10, now_s=10 * turn)
        assert [e.seq for e in again] == [1, 2]
        assert schedule.postpone(again, now_s=10 * turn) == []
    last_s = 10 * (POSTPONED_MAX + 1)
    again = schedule.overdue(10, now_s=last_s)
    assert schedule.postpone(again, now_s=last_s) == again
    assert schedule.overdue(10, now_s=last_s + 19) == [], "it was sent, and the next pause is longer"
    assert schedule.overdue(10, now_s=last_s + 20) == again


def test_what_has_finished_meanwhile_is_not_postponed():
    schedule = schedule_of(entry(1, "a"), entry(2, "b"))
    schedule.next_batch(10, now_s=0)
    again = schedule.overdue(10, now_s=10)
    schedule.finish(again[0])
    assert schedule.postpone(again, now_s=10) == []


def test_a_records_commands_are_sent_again_together_and_in_order():
    busy = [entry(n, "R" if n in (200, 201) else f"r{n}") for n in range(1, 402)]
    schedule = schedule_of(*busy)
    schedule.next_batch(199, now_s=0)
    schedule.next_batch(200, now_s=0)
    schedule.next_batch(200, now_s=0)
    again = [[e.seq for e in schedule.overdue(200, now_s=10)] for _ in range(3)]
    assert again == [list(range(1, 200)), list(range(200, 400)), [400, 401]]


def test_the_oldest_messages_of_each_queue_are_told_and_what_waits_of_them():
    schedule = schedule_of(*(entry(n, f"r{n}") for n in range(6)), entry(6, "ledger", "tokens"))
    (first, _), *others = [schedule.next_batch(2, now_s=0) for _ in range(4)]
    schedule.finish(first)
    told = schedule.under_way({"trades": 2, "tokens": 9}.__getitem__)
    assert {queue: [(m.size, [e.seq for e in m.waiting]) for m in of] for queue, of in told.items()} == {
        "trades": [(2, [1]), (2, [2, 3])],
        "tokens": [(1, [6])],
    }
    for sent in (sent for message in others for sent in message):
        schedule.finish(sent)
    assert schedule.under_way(lambda _: 9) == {"trades": [(2, [entry(1, "r1")])]}


def test_finishing_twice_or_something_unknown_changes_nothing():
    schedule = schedule_of(entry(1, "a"))
    (sent,) = schedule.next_batch(1, now_s=0)
    schedule.finish(sent)
    schedule.finish(sent)
    schedule.finish(entry(9, "z"))
    assert not schedule.any_under_way


def test_a_settlement_waits_for_the_trade_that_reserves():
    schedule = schedule_of(
        entry(1, "ledger", "tokens"),
        entry(2, "t", beside="ledger"),
        entry(3, "ledger", "tokens"),
        entry(4, "t"),
        entry(5, "u"),
    )
    (snapshot,) = schedule.next_batch(10, now_s=0)
    (other,) = schedule.next_batch(10, now_s=0)
    assert (snapshot.seq, other.seq) == (1, 5)
    schedule.finish(snapshot)
    added, filled = schedule.next_batch(10, now_s=0)
    assert (added.seq, filled.seq) == (2, 4)
    assert schedule.next_batch(10, now_s=0) == []
    schedule.finish(added)
    assert [e.seq for e in schedule.next_batch(10, now_s=0)] == [3]


TRADES, LEDGERS = "ab", "xy"
one_record = st.sampled_from(TRADES + LEDGERS).map(lambda record: (record, None))
two_records = st.tuples(st.sampled_from(TRADES), st.sampled_from(LEDGERS))


@given(st.lists(one_record | two_records, max_size=30), st.integers(1, 4), st.randoms(use_true_random=False))
def test_everything_is_sent_once_and_in_order_per_record(records, size: int, random):
    entries = [
        entry(n, record, "tokens" if record in LEDGERS else "trades", beside)
        for n, (record, beside) in enumerate(records)
    ]
    schedule = schedule_of(*entries)
    sent: list[SpoolEntry] = []
    under_way: list[SpoolEntry] = []
    while len(sent) < len(records):
        batch = schedule.next_batch(size, now_s=0)
        assert len({e.queue for e in batch}) <= 1
        assert not _touched(under_way) & _touched(batch)
        sent += batch
        under_way += batch
        assert batch or under_way
        if under_way and (not batch or random.random() < 0.5):
            schedule.finish(under_way.pop(random.randrange(len(under_way))))
    assert sorted(sent) == entries
    for record in TRADES + LEDGERS:
        order = [e.seq for e in sent if record in e.records]
        assert order == sorted(order)


def _touched(entries: list[SpoolEntry]) -> set[str]:
    return {record for item in entries for record in item.records}
