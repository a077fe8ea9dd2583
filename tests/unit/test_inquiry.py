"""Which commands a client looks up: those that may have come to an end, and no others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tradepool.client import inquiry as limits
from tradepool.client.confirming import FEW, PAUSE_BACKLOG_S, PAUSE_FEW_S, PAUSE_MANY_S, next_pause_s
from tradepool.client.inquiry import WINDOW_MIN, Inquiry
from tradepool.client.look import Look
from tradepool.client.schedule import Message
from tradepool.client.spool import SpoolEntry

SHARDS = 4


def look(*moved: int, answered: bytes | None = None) -> Look:
    """The journal has moved in the shards `moved`."""
    return Look("g", answered, [b"1-0 0 0" if shard in moved else None for shard in range(SHARDS)])


def message(*seqs: int) -> Message:
    return Message(len(seqs), [SpoolEntry(seq, f"c-{seq}", "trades", f"t-{seq}", "u") for seq in seqs])


def inquiry() -> Inquiry:
    """An entry's shard is its number's rest."""
    return Inquiry(lambda entry: entry.seq % SHARDS)


def asked(of: Inquiry, messages: Sequence[Message], now: Look, known: Sequence[int] = ()) -> list[int]:
    """What is looked up, in vain."""
    chosen = of.choose(messages, set(known), now)
    of.note(chosen, now)
    return [entry.seq for entry in chosen]


def test_a_command_is_looked_up_again_when_the_journal_has_moved_in_its_shard():
    singles = inquiry()
    messages = [message(1), message(2)]
    assert asked(singles, messages, look()) == [1, 2]
    assert asked(singles, messages, look()) == []
    assert asked(singles, messages, look(3)) == []
    assert asked(singles, messages, look(3, 2)) == [2]
    assert asked(singles, messages, look(3, 2)) == []


def test_a_command_whose_shard_is_unknown_is_looked_up_when_anything_has_moved():
    unrouted = Inquiry(lambda _: None)
    assert asked(unrouted, [message(1)], look()) == [1]
    assert asked(unrouted, [message(1)], look()) == []
    assert asked(unrouted, [message(1)], look(3)) == [1]


def test_a_command_is_looked_up_again_when_an_answer_was_kept():
    singles = inquiry()
    assert asked(singles, [message(1)], look()) == [1]
    (entry,) = message(1).waiting
    assert not singles.may_have_answered(entry, look(1))
    assert singles.may_have_answered(entry, look(answered=b"1"))
    assert asked(singles, [message(1)], look(answered=b"1")) == [1]


def test_one_command_speaks_for_its_message_until_something_of_it_is_found():
    chunks = inquiry()
    chunk = message(1, 2, 3, 4, 5)
    assert asked(chunks, [chunk], look()) == [1]
    assert asked(chunks, [chunk], look()) == [2], "the first may be the one that stays behind"
    assert asked(chunks, [chunk], look(), known=[2]) == [3, 4, 5]
    rest = Message(5, chunk.waiting[2:])
    assert asked(chunks, [rest], look()) == []
    assert asked(chunks, [rest], look(3)) == [3]


def test_a_message_of_which_all_were_looked_up_in_vain_waits_for_its_shards():
    chunks = inquiry()
    assert [asked(chunks, [message(1, 2)], look()) for _ in range(3)] == [[1], [2], []]
    assert asked(chunks, [message(1, 2)], look(1)) == [1]


def test_the_window_follows_what_moves():
    singles = inquiry()
    messages = [message(n) for n in range(100)]
    singles.adapt(messages[: singles.window], found=[])
    assert singles.window == 2 * WINDOW_MIN
    for _ in range(5):
        singles.adapt(messages[: singles.window], found=[])
    assert singles.window >= len(messages), "it reaches what moves behind what is stuck"
    singles.adapt(messages, found=[1])
    assert singles.window == WINDOW_MIN + 4


def test_those_that_were_never_or_long_ago_looked_up_come_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LOOKED_UP_MAX", 2)
    singles = inquiry()
    messages = [message(n) for n in range(1, 6)]
    moves = [look(*range(SHARDS)), look(), look(*range(SHARDS)), look()]
    assert [asked(singles, messages, now) for now in moves] == [[1, 2], [3, 4], [5, 3], [1, 2]]


def test_what_was_looked_up_longest_ago_is_looked_up_again_by_the_sweep():
    singles = inquiry()
    messages = [message(1), message(2)]
    assert asked(singles, messages, look()) == [1, 2]
    singles.forget_looks(1)
    assert asked(singles, messages, look()) == [1]


def test_a_lone_command_is_waited_for_with_short_pauses_that_grow():
    first_s = next_pause_s(PAUSE_FEW_S, finished=0, left=1)
    assert PAUSE_FEW_S < first_s < next_pause_s(first_s, finished=0, left=1)
    assert next_pause_s(0.5, finished=1, left=1) == PAUSE_FEW_S


def test_a_backlog_is_looked_at_as_rarely_as_it_moves():
    slow_s = PAUSE_MANY_S
    for _ in range(10):
        slow_s = next_pause_s(slow_s, finished=1, left=10 * FEW)
    assert slow_s == PAUSE_BACKLOG_S
    assert next_pause_s(slow_s, finished=0, left=10 * FEW) > PAUSE_BACKLOG_S
    fast_s = slow_s
    for _ in range(10):
        fast_s = next_pause_s(fast_s, finished=FEW, left=10 * FEW)
    assert fast_s == PAUSE_MANY_S
