"""What becomes of a message: applied, parked, sent later, or given back; never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from types import SimpleNamespace

import pytest
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from tasks import delivery, pool_task
from tasks.decoding import Envelope
from tasks.delivery import deliver
from tasks.trades import add_trade
from tradepool import wire
from tradepool.errors import (
    ChecksumMismatch,
    IllegalTransition,
    InvalidTokens,
    JournalUnavailable,
    Misconfigured,
    Rejected,
    StoreUnavailable,
    UnknownTrade,
    VersionConflict,
)
from tradepool.model.commands import AddTrade, Command
from tradepool.model.ids import derive_id, slot_of_id, slot_of_user
from tradepool.model.ledger import Reservation, ReservationStatus
from tradepool.model.receipt import Receipt
from tradepool.settings import Settings

ENVELOPE = Envelope(task_id="task-1", task_name="tasks.trades.apply_changes", sent_at=1_700_000_000_000_000)
CLOSE = {"op": "close_trade", "trade_id": "t", "price": "100"}


class FakeCore:
    """Applies everything, unless `trouble` has something for the command."""

    def __init__(self, trouble: Callable[[Command], Exception | None]) -> None:
        self.trouble = trouble
        self.applied: list[Command] = []
        self.refused: list[tuple[Command, Exception]] = []
        self.calls = 0

    def apply(self, commands: Sequence[Command], *, task_id: str) -> list[object]:
        assert task_id == ENVELOPE.task_id
        self.calls += 1
        results: list[object] = []
        for command in commands:
            problem = self.trouble(command)
            if isinstance(problem, Rejected):
                results.append(problem)
            elif problem is not None:
                raise problem
            else:
                self.applied.append(command)
                results.append(Receipt(trade_id="t", outcome="applied", version=1, position="1-0"))
        return results

    def refuse(self, command: Command, error: Exception) -> None:
        self.refused.append((command, error))


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    parked: list[dict[str, object]] = []
    monkeypatch.setattr(delivery, "park", lambda _app, new: parked.extend(new))
    monkeypatch.setattr(pool_task, "park", lambda _app, new: parked.extend(new))
    return parked


def app_with(trouble: Callable[[Command], Exception | None] = lambda _: None) -> SimpleNamespace:
    later: list[tuple[dict[str, object], float]] = []
    return SimpleNamespace(
        settings=Settings().model_copy(update={"visibility_timeout_s": 1}),
        stopping=threading.Event(),
        services=SimpleNamespace(core=FakeCore(trouble)),
        later=later,
        send_task=lambda _name, args, kwargs, countdown, **_: later.append((args[0], kwargs, countdown)),
    )


def test_a_command_without_a_name_gets_the_same_one_at_every_delivery(letters):
    app = app_with()
    for _ in range(2):
        deliver(app, ENVELOPE, [CLOSE, CLOSE])
    assert [c.command_id for c in app.services.core.applied] == ["task-1:0", "task-1:1"] * 2
    assert [c.as_of - ENVELOPE.sent_at for c in app.services.core.applied] == [0, 1] * 2


def test_a_trade_without_an_id_gets_the_same_one_at_every_delivery(letters):
    app = app_with()
    for _ in range(2):
        deliver(app, ENVELOPE, [{"op": "add_trade", "trade": {"user_id": "u"}}] * 2)
    minted = [c.trade["trade_id"] for c in app.services.core.applied if isinstance(c, AddTrade)]
    assert minted[:2] == minted[2:]
    assert minted[:2] == [derive_id("u", at_us=ENVELOPE.sent_at, seed=f"task-1:{n}") for n in (0, 1)]
    assert minted[0] != minted[1]
    assert slot_of_id(minted[0]) == slot_of_user("u")


def test_a_refusal_is_parked_and_answered_and_the_rest_is_applied(letters):
    app = app_with(lambda c: IllegalTransition("no", field="status") if c.command_id == "bad" else None)
    answers = deliver(app, ENVELOPE, [CLOSE, {**CLOSE, "command_id": "bad"}, 17, CLOSE])
    assert [answer["outcome"] for answer in answers] == ["applied", "rejected", "rejected", "applied"]
    assert [letter["reason"]["error"] for letter in letters] == ["IllegalTransition", "InvalidTrade"]
    assert letters[0]["payload"]["command_id"] == "bad"
    assert [command.command_id for command, _ in app.services.core.refused] == ["bad"]


@pytest.mark.parametrize(
    "problem", [StoreUnavailable("away"), JournalUnavailable("full"), VersionConflict("race")]
)
def test_a_short_outage_is_waited_out(letters, problem: Exception):
    attempts: list[int] = []

    def away_twice(_: Command) -> Exception | None:
        attempts.append(1)
        return problem if len(attempts) <= 2 else None

    app = app_with(away_twice)
    assert deliver(app, ENVELOPE, [CLOSE])[0]["outcome"] == "applied"
    assert letters == []


@pytest.mark.parametrize(
    "problem", [StoreUnavailable("away"), VersionConflict("race"), Misconfigured("shards differ")]
)
def test_a_long_outage_gives_the_message_back(letters, problem: Exception):
    app = app_with(lambda _: problem)
    with pytest.raises(type(problem)):
        deliver(app, ENVELOPE, [CLOSE])
    assert app.services.core.calls > 1
    assert letters == []


def test_a_worker_that_ends_does_not_wait_for_an_outage_to_pass(letters):
    app = app_with(lambda _: StoreUnavailable("away"))
    app.stopping.set()
    with pytest.raises(StoreUnavailable):
        deliver(app, ENVELOPE, [CLOSE])
    assert app.services.core.calls == 1


def test_a_bug_that_one_command_meets_parks_that_command_alone(letters):
    app = app_with(lambda c: ZeroDivisionError("bug") if c.command_id == "bad" else None)
    answers = deliver(app, ENVELOPE, [CLOSE, {**CLOSE, "command_id": "bad"}, CLOSE])
    assert [answer["outcome"] for answer in answers] == ["applied", "failed", "applied"]
    assert [letter["reason"]["error"] for letter in letters] == ["ZeroDivisionError"]
    ((command, answer),) = app.services.core.refused
    assert command.command_id == "bad"
    assert answer.as_dict()["problem"] == "ZeroDivisionError('bug')"


def test_a_client_is_told_of_a_command_that_cannot_be_read(letters):
    app = app_with()
    unreadable = {"op": "update_trade", "command_id": "c-1", "as_of": 1, "trade_id": "t", "changes": 5}
    deliver(app, ENVELOPE, [unreadable, {**unreadable, "command_id": 5}, CLOSE])
    assert [command.command_id for command, _ in app.services.core.refused] == ["c-1"]
    assert [letter["payload"] for letter in letters] == [unreadable, {**unreadable, "command_id": 5}]
    assert len(app.services.core.applied) == 1


def test_what_is_parked_is_the_same_command_when_it_is_sent_again(letters):
    app = app_with(lambda _: IllegalTransition("no", field="status"))
    add = {"op": "add_trade", "trade": {"user_id": "u"}}
    deliver(app, ENVELOPE, [add, {**add, "reserve": 5}, CLOSE])
    first = [letter["payload"] for letter in letters]
    assert [letter["sent_at"] for letter in letters] == [ENVELOPE.sent_at] * 3
    later = Envelope(task_id="task-1", task_name=ENVELOPE.task_name, sent_at=ENVELOPE.sent_at + 10**9)
    deliver(app, later, first[::-1])
    assert [letter["payload"] for letter in letters[3:]] == first[::-1]


def test_a_corrupt_record_is_tried_again_later_and_holds_up_nobody(letters):
    app = app_with(lambda c: ChecksumMismatch("damaged") if c.command_id == "bad" else None)
    answers = deliver(app, ENVELOPE, [CLOSE, {**CLOSE, "command_id": "bad"}, CLOSE])
    assert [answer["outcome"] for answer in answers] == ["applied", "later", "applied"]
    ((commands, _, pause_s),) = app.later
    assert [command["command_id"] for command in commands] == ["bad"]
    assert 0 < pause_s < app.settings.visibility_timeout_s
    assert letters == []


def test_an_update_waits_for_its_add_with_longer_and_longer_pauses_then_is_parked(letters):
    app = app_with(lambda _: UnknownTrade("no such trade"))
    deliver(app, ENVELOPE, [CLOSE])
    ((_, again, first_pause_s),) = app.later
    since = again["overtaken_since"]
    halfway = Envelope(task_id="task-1", task_name="t", overtaken_since=since - 150_000)
    deliver(app, halfway, [CLOSE])
    assert app.later[1][1]["overtaken_since"] == since - 150_000
    assert app.later[1][2] > first_pause_s
    assert letters == []
    too_long = Envelope(task_id="task-1", task_name="t", overtaken_since=since - 3_000_000)
    deliver(app, too_long, [CLOSE])
    assert len(app.later) == 2
    assert letters[0]["reason"]["error"] == "UnknownTrade"


SETTLE = {"op": "settle_tokens", "reservation_id": "ann:default:k", "spent": "1"}
SETTLING = Envelope(task_id="task-1", task_name="tasks.tokens.settle_tokens")
UNKNOWN_RESERVATION = InvalidTokens("no such reservation", field="reservation_id", value="ann:default:k")


@pytest.mark.parametrize("op", ["settle_tokens", "release_tokens"])
def test_a_settlement_waits_for_its_reservation_like_an_update_for_its_add(letters, op: str):
    app = app_with(lambda _: UNKNOWN_RESERVATION)
    answers = deliver(app, SETTLING, [{**SETTLE, "op": op}])
    assert [answer["outcome"] for answer in answers] == ["later"]
    ((commands, again, _),) = app.later
    assert commands[0]["op"] == op
    assert letters == []
    since = again["overtaken_since"] - 3_000_000
    too_long = Envelope(task_id="task-1", task_name=wire.APPLY_CHANGES, overtaken_since=since)
    deliver(app, too_long, [SETTLE])
    assert len(app.later) == 1
    assert [letter["reason"]["problem"] for letter in letters] == ["no such reservation"]


def test_a_client_that_keeps_the_order_is_answered_at_once(letters):
    app = app_with(lambda _: UNKNOWN_RESERVATION)
    assert deliver(app, ENVELOPE, [SETTLE])[0]["outcome"] == "rejected"
    assert app.later == []
    assert len(letters) == 1


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (SETTLE | {"reservation_id": "no id at all"}, UNKNOWN_RESERVATION),
        (SETTLE, InvalidTokens("more than reserved", field="spent")),
        (SETTLE, IllegalTransition("already released", field="reservation_id")),
        ({"op": "update_tokens", "user_id": "ann", "tokens": []}, InvalidTokens("x", field="reservation_id")),
    ],
)
def test_what_no_waiting_can_mend_is_parked_at_once(letters, command, refusal: Rejected):
    app = app_with(lambda _: refusal)
    assert deliver(app, SETTLING, [command])[0]["outcome"] == "rejected"
    assert len(letters) == 1
    assert app.later == []


def test_an_add_keeps_its_reservation_when_it_is_given_an_id(letters):
    app = app_with()
    reserve = {"asset": "USDT", "amount": 1, "ttl_s": 5}
    deliver(app, ENVELOPE, [{"op": "add_trade", "trade": {"user_id": "u"}, "reserve": reserve}])
    (command,) = app.services.core.applied
    assert command.reserve == reserve
    assert "trade_id" in command.trade


def test_an_answer_tells_the_reservation(letters):
    made = Reservation(
        reservation_id="ann:default:k",
        asset="USDT",
        amount=Decimal(5),
        status=ReservationStatus.OPEN,
        reserved_at=1,
        expires_at=2,
    )
    app = app_with()
    receipt = Receipt(trade_id="t", outcome="applied", version=1, position="1-0", reservation=made)
    app.services.core.apply = lambda *_, **__: [receipt]
    (answer,) = deliver(app, ENVELOPE, [SETTLE])
    assert (answer["reservation"]["status"], answer["reservation"]["amount"]) == ("open", "5")


def test_a_failed_task_parks_its_message_and_a_missing_broker_gives_it_back(
    letters, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(pool_task, "deliver", broken)
    add_trade({"user_id": "u"})
    assert letters[0]["payload"] == {"args": ({"user_id": "u"},), "kwargs": {}}

    def unreachable(*_: object) -> None:
        raise OperationalError("no broker")

    monkeypatch.setattr(pool_task, "park", unreachable)
    with pytest.raises(Reject) as given_back:
        add_trade({"user_id": "u"})
    assert given_back.value.requeue
