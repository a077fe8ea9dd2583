"""A trade in quarantine: nothing changes it but its release, and what was there before reads as it did."""

from __future__ import annotations

import msgspec
import pytest

from tests.loose_trades import buy, entry
from tradepool import commanding
from tradepool.due_trades import is_due
from tradepool.errors import InvalidTrade, Quarantined
from tradepool.model import changes, codec
from tradepool.model.changes import RELEASED
from tradepool.model.trade import Trade

REASON = "quantities: closed 3, filled 2, amount 2"


@pytest.fixture
def trade():
    made = changes.add(commanding.add_trade(buy()), trade_id="t1", existing=None).trade
    return changes.change(made, commanding.add_fill("t1", entry("f1"))).trade


@pytest.fixture
def kept(trade):
    return changes.change(trade, commanding.quarantine("t1", REASON)).trade


OTHERS = [
    commanding.add_fill("t1", entry("f2")),
    commanding.close_trade("t1", "110", fee=0, fee_currency=None, amount=None, at=None),
    commanding.update_trade("t1", {"strategy": "other"}, expected_version=None),
    commanding.update_trade_pnl("t1", "5", "completed", as_of=None),
]


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: type(command).__name__)
def test_every_other_change_is_refused_and_the_error_names_the_cure(kept, command):
    with pytest.raises(Quarantined, match=r"trade_id: .*amount 2.*--release"):
        changes.change(kept, command)


def test_what_was_applied_before_is_still_a_repeat(trade):
    command = commanding.update_trade("t1", {"strategy": "mine"}, expected_version=None)
    after = changes.change(trade, command).trade
    kept = changes.change(after, commanding.quarantine("t1", REASON)).trade
    assert changes.change(kept, command).outcome == "duplicate"


def test_figures_and_status_stay_as_they_are(trade, kept):
    stamps = {name: getattr(kept, name) for name in ("version", "applied", "updated_at", "quarantine")}
    assert kept == msgspec.structs.replace(trade, **stamps)
    assert (kept.version, kept.quarantine) == (trade.version + 1, REASON)


def test_released_it_changes_again_and_remembers_why_it_was_kept(kept):
    released = changes.change(kept, commanding.quarantine("t1", None)).trade
    assert (released.quarantine, released.notes[-1]) == (None, f"{RELEASED}{REASON}")
    assert changes.change(released, OTHERS[2]).outcome == "applied"


def test_the_same_once_more_changes_nothing(trade, kept):
    assert changes.change(kept, commanding.quarantine("t1", REASON)).outcome == "duplicate"
    assert changes.change(trade, commanding.quarantine("t1", None)).outcome == "duplicate"


@pytest.mark.parametrize("reason", ["", "  ", 7, "a\nb", "x" * 1025])
def test_a_reason_is_a_text(trade, reason):
    with pytest.raises(InvalidTrade, match="reason"):
        changes.change(trade, commanding.quarantine("t1", reason))


def test_a_trade_in_no_quarantine_is_stored_as_it_always_was(trade, kept):
    assert b"quarantine" not in codec.encode_trade(trade)
    assert codec.decode_trade(codec.encode_trade(kept)) == kept
    released = msgspec.structs.replace(kept, quarantine=None)
    assert codec.encode_trade(released) == codec.encode_trade(kept).replace(
        f',"quarantine":"{REASON}"'.encode(), b""
    )


def test_it_survives_its_own_dictionary(kept):
    assert Trade.from_dict(kept.to_dict()) == kept


def test_a_trade_that_is_added_with_its_quarantine_keeps_it(kept):
    again = changes.add(commanding.add_trade(kept), trade_id="t1", existing=None).trade
    assert again.quarantine == REASON


def test_what_is_in_quarantine_is_not_archived(trade):
    ended = msgspec.structs.replace(trade, status=trade.status.COMPLETED, closed_at=7, updated_at=7)
    later = 10**18
    assert is_due(ended, later)
    assert not is_due(msgspec.structs.replace(ended, quarantine=REASON), later)
