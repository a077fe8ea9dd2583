"""What one commit compares and writes, without a server."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store_changes import cancelled, change, filled, ledger_change, new_trade
from tradepool.errors import Corrupt
from tradepool.files.lines import JournalLine, decode, encode_lines
from tradepool.journaling.writer import new_lines
from tradepool.model.codec import digest_of, encode_trade, pack, pack_trade
from tradepool.model.counters import contribution
from tradepool.model.kinds import Role
from tradepool.model.positions import parse_position
from tradepool.store.keys import Keys
from tradepool.store.limbs import join_limbs, split_limbs
from tradepool.store.outbox import OutboxEntry
from tradepool.store.plan import claims_of, plan_commit

KEYS = Keys(4)
SHARD = KEYS.shard_of_user("ann")


class Arguments:
    """Reads a plan's ARGV the way the script does."""

    def __init__(self, plan):
        argument = lambda place: plan.argv[place - 1]  # noqa: E731 - ARGV counts from 1
        hashes, digests, touched, increments, writes, outbox, _ = msgspec.msgpack.decode(plan.argv[0])
        self.keys = plan.keys
        self.checks, self.writes = {}, []
        for key, fields, expected, values in hashes:
            name = plan.keys[key - 1]
            wanted = expected or [""] * len(fields)
            self.checks |= {(name, f): w.encode() for f, w in zip(fields, wanted, strict=True)}
            stored = [argument(value) for value in values]
            self.writes.append(("HSET", name, [x for pair in zip(fields, stored, strict=True) for x in pair]))
        self.digest_key = plan.keys[digests[0] - 1]
        self.digests = {bucket: tuple(change) for bucket, *change in zip(*digests[1:], strict=True)}
        self.touched = {plan.keys[key - 1]: text for key, text in zip(*touched, strict=True)}
        self.increments = {
            (plan.keys[key - 1], field): int(amount)
            for key, amounts in increments
            for field, amount in zip(amounts[::2], amounts[1::2], strict=True)
        }
        self.writes += [(command, plan.keys[key - 1], arguments) for command, key, arguments in writes]
        self.outbox = []
        for name, prefix, value in zip(*outbox[1:], strict=True) if outbox else ():
            self.outbox += [name, prefix.encode() + argument(value)]
        self.arguments = plan.argv

    def written(self, command, name):
        return [
            argument for c, k, arguments in self.writes if (c, k) == (command, name) for argument in arguments
        ]


def plan(*changes, **options):
    return Arguments(plan_commit(KEYS, SHARD, changes, recent_max=10, **options))


def test_an_add_expects_the_record_to_be_absent_and_enters_every_index():
    trade = new_trade("ann")
    planned = plan(change(None, trade))
    records = KEYS.records(SHARD, KEYS.bucket_of(trade.trade_id))
    assert planned.checks == {(records, trade.trade_id): b""}
    assert planned.written("HSET", records) == [trade.trade_id, pack_trade(trade)]
    for index in (KEYS.user_index(SHARD, "ann"), KEYS.symbol_index(SHARD, "BTC/USDT"), KEYS.recent(SHARD)):
        assert planned.written("ZADD", index) == [str(trade.created_at), trade.trade_id]
    assert planned.written("ZADD", KEYS.open_trades(SHARD)) == ["0", f"ann\x1f{trade.trade_id}"]
    assert planned.written("SADD", KEYS.users(SHARD)) == ["ann"]
    assert planned.written("ZREMRANGEBYRANK", KEYS.recent(SHARD)) == ["0", "-11"]


def test_an_update_compares_version_and_digest_and_leaves_the_indexes_alone():
    before = new_trade("ann")
    after = filled(before)
    planned = plan(change(before, after))
    records = KEYS.records(SHARD, KEYS.bucket_of(before.trade_id))
    assert planned.checks[records, before.trade_id] == b"00000001" + digest_of(encode_trade(before)).encode()
    assert {command for command, _, _ in planned.writes} == {"HSET"}


def test_a_trade_that_ends_leaves_the_open_set():
    trade = new_trade("ann")
    planned = plan(change(trade, cancelled(trade)))
    assert planned.written("ZREM", KEYS.open_trades(SHARD)) == [f"ann\x1f{trade.trade_id}"]
    assert planned.written("ZADD", KEYS.open_trades(SHARD)) == []


def test_a_trade_that_opens_and_ends_in_one_batch_was_never_open():
    trade = new_trade("ann")
    planned = plan(change(None, trade), change(trade, cancelled(trade)))
    assert planned.written("ZADD", KEYS.open_trades(SHARD)) == []
    assert planned.written("ZREM", KEYS.open_trades(SHARD)) == []


def test_changes_of_one_record_become_one_write_and_an_outbox_item_each():
    trade = new_trade("ann")
    entered = filled(trade)
    closed = filled(entered, Role.EXIT, fill_id="v2", price=110)
    steps = [change(None, trade), change(trade, entered, task_id="task-9"), change(entered, closed)]
    planned = plan(*steps)
    records = KEYS.records(SHARD, KEYS.bucket_of(trade.trade_id))
    assert planned.checks[records, trade.trade_id] == b""
    assert planned.written("HSET", records) == [trade.trade_id, pack_trade(closed)]
    assert planned.touched == {KEYS.changed(SHARD, "ann"): f"{trade.trade_id}\x1f"}
    names, values = planned.outbox[::2], planned.outbox[1::2]
    assert names == ["ta0", "tu1", "tu2"]
    items = {name.encode(): value for name, value in zip(names, values, strict=True)}
    lines = list(new_lines(OutboxEntry(SHARD, "7-1", items)))
    assert [line.record for line in lines] == [encode_trade(t) for t in (trade, entered, closed)]
    digests = [digest_of(line.record).encode() for line in lines]
    assert [line.digest for line in lines] == digests
    assert [line.previous for line in lines] == [b"", *digests[:-1]]
    assert [line.command_id.decode() for line in lines] == [step.command_id for step in steps]
    assert [(line.task_id, line.place, line.version) for line in lines] == [
        (b"", 0, trade.version),
        (b"task-9", 1, entered.version),
        (b"", 2, closed.version),
    ]
    assert {(line.shard, line.position, line.kind) for line in lines} == {(SHARD, b"7-1", b"t")}
    assert {line.record_id.decode() for line in lines} == {trade.trade_id}
    assert [line.status.decode() for line in lines] == [t.status.code for t in (trade, entered, closed)]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "ä", "\u2028", "a\tb", "a\x7fb"])
def test_an_id_is_spelled_in_the_line_as_json_spells_it(name):
    stored = pack(3, b'{"n":1}', "t", "p")
    value = "\x1e".join((name, f"c{name}", name * 2, "0" * 16, "")).encode() + stored
    (line,) = new_lines(OutboxEntry(SHARD, "7-1", {b"tu0": value}))
    assert [line.record_id, line.command_id, line.task_id] == [
        msgspec.json.encode(text)[1:-1] for text in (name, f"c{name}", name * 2)
    ]
    parts, _ = encode_lines([line], 0, 0)
    read = decode(b"".join(parts), JournalLine)
    assert (read.record_id, read.command_id, read.task_id) == (name, f"c{name}", name * 2)
    assert (read.value, read.previous, read.version) == (stored, "0" * 16, 3)


def test_a_value_is_sent_once_for_the_record_and_its_outbox_item():
    trade = new_trade("ann")
    planned = plan(change(None, trade), change(trade, cancelled(trade)))
    assert sorted(planned.arguments[1:]) == [pack_trade(trade), pack_trade(cancelled(trade))]


def test_changes_of_one_record_must_follow_each_other():
    trade = new_trade("ann")
    with pytest.raises(AssertionError):
        plan(change(None, trade), change(cancelled(trade), filled(trade)))


def test_digests_change_by_what_goes_and_what_comes():
    trade = new_trade("ann")
    after = cancelled(trade)
    planned = plan(change(trade, after))
    changed = int(digest_of(encode_trade(trade)), 16) ^ int(digest_of(encode_trade(after)), 16)
    bucket = f"{KEYS.bucket_of(trade.trade_id):x}"
    assert planned.digests == {bucket: (changed >> 32, changed & 0xFFFFFFFF, 0)}
    assert planned.digest_key == KEYS.digest(SHARD)


def test_counters_move_by_the_difference_of_contributions():
    before = new_trade("ann")
    after = filled(before)
    planned = plan(change(before, after))
    fields = {
        field: n for (key, field), n in planned.increments.items() if key == KEYS.counters(SHARD, "ann")
    }
    old, new = contribution(before), contribution(after)
    differences = {name: new.get(name, 0) - old.get(name, 0) for name in old | new}
    assert join_limbs(fields) == {name: n for name, n in differences.items() if n}
    assert 0 not in fields.values()


def test_a_new_idempotency_key_and_new_venue_fills_must_be_free():
    trade = filled(new_trade("ann", idempotency_key="k1", exchange="binance"))
    planned = plan(change(None, trade))
    claim = "binance\x1fdefault\x1fBTC/USDT\x1fv1"
    assert planned.checks[KEYS.idempotency(SHARD, "ann"), "k1"] == b""
    assert planned.checks[KEYS.fill_claims(SHARD, "ann"), claim] == b""
    assert planned.written("HSET", KEYS.idempotency(SHARD, "ann")) == ["k1", trade.trade_id.encode()]
    assert planned.written("HSET", KEYS.fill_claims(SHARD, "ann")) == [claim, trade.trade_id.encode()]
    later = plan(change(trade, cancelled(trade)))
    assert len(later.checks) == 1, "what the trade owns already is not asked again"


def test_fills_that_the_pool_made_itself_claim_nothing():
    trade = new_trade("ann")
    assert claims_of(filled(trade, fill_id=f"{trade.trade_id}:entry")) == set()


def test_two_trades_of_a_batch_cannot_claim_the_same_fill():
    trades = [filled(new_trade("ann")) for _ in range(2)]
    with pytest.raises(Corrupt, match="claim fill"):
        plan(*(change(None, trade) for trade in trades))


def test_a_ledger_is_a_record_like_any_other_but_counts_nothing():
    planned = plan(ledger_change("ann", None, b'{"assets":{}}', next_expiry=7))
    records = KEYS.records(SHARD, KEYS.bucket_of("ann\x1fdefault"))
    assert planned.checks == {(records, "ann\x1fdefault"): b""}
    assert planned.touched == {KEYS.changed(SHARD, "ann"): "\x1f"}
    assert planned.increments == {}
    assert {command for command, _, _ in planned.writes} == {"HSET", "SADD", "ZADD"}
    assert planned.written("ZADD", KEYS.expiries(SHARD)) == ["7", "ann\x1fdefault"]
    assert planned.outbox[0] == "la0"


def test_a_ledger_expires_when_its_last_change_in_the_batch_says():
    first = ledger_change("ann", None, b'{"n":1}', next_expiry=7)
    later = ledger_change("ann", first.after, b'{"n":2}', version=2, next_expiry=9)
    resolved = ledger_change("ann", later.after, b'{"n":3}', version=3)
    assert plan(first, later).written("ZADD", KEYS.expiries(SHARD)) == ["9", "ann\x1fdefault"]
    gone = plan(first, later, resolved)
    assert gone.written("ZADD", KEYS.expiries(SHARD)) == []
    assert gone.written("ZREM", KEYS.expiries(SHARD)) == ["ann\x1fdefault"]


def test_without_outbox_only_the_projection_is_written():
    step = change(None, new_trade("ann"))
    with_outbox, without = plan(step), plan(step, with_outbox=False)
    assert without.outbox == []
    assert without.touched == {}, "nobody has seen what recovery changes"
    assert without.writes == with_outbox.writes
    assert without.checks == with_outbox.checks


def test_no_call_of_a_large_plan_has_more_arguments_than_lua_can_unpack():
    trade = new_trade("ann", amount=Decimal(5000))
    one = filled(new_trade("ann", amount=Decimal(1))).fills[0]
    fills = tuple(msgspec.structs.replace(one, fill_id=f"v{i}") for i in range(5000))
    planned = plan_commit(
        KEYS, SHARD, [change(None, msgspec.structs.replace(trade, fills=fills))], recent_max=10
    )
    read = Arguments(planned)
    assert max(len(arguments) for _, _, arguments in read.writes) <= 4000
    assert len(read.checks) == 5001
    assert len(planned.checks) == 5001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"ta0", b"no separators"),
        (b"tax", b"i\x1ec\x1et\x1ed\x1ev"),
        (b"t", b"i\x1ec\x1et\x1ed\x1ev"),
        (b"", b""),
        (b"ta0", b"\xff\x1ec\x1et\x1ed\x1e" + pack(1, b"{}", "t", "p")),
        (b"ta0", b"i\x1ec\x1et\x1ed\x1e" + pack(1, b"{}", "t", '"')),
        (b"ta0", b"i\x1ec\x1et\x1ed\x1ex" + pack(1, b"{}", "t", "p")),
    ],
)
def test_what_is_no_outbox_item_is_corrupt(name, value):
    with pytest.raises(Corrupt, match="7-1"):
        list(new_lines(OutboxEntry(SHARD, "7-1", {name: value})))


def test_positions_compare_as_numbers():
    assert parse_position("9-10") > parse_position("9-9") > parse_position("8-11")


@given(st.lists(st.integers(-(10**60), 10**60), max_size=8))
def test_limbs_add_up_to_the_sum_however_large(amounts):
    fields: dict[str, int] = {}
    for amount in amounts:
        for field, limb in split_limbs("real|USDT|pnl", amount):
            assert -(10**12) // 2 <= limb <= 10**12 // 2
            fields[field] = fields.get(field, 0) + limb
    total = sum(amounts)
    assert join_limbs(fields) == ({"real|USDT|pnl": total} if total else {})


def test_a_small_amount_takes_one_field():
    assert list(split_limbs("n", 499_999_999_999)) == [("n", 499_999_999_999)]
    assert list(split_limbs("n", 10**12)) == [("n~", 1)]
    assert list(split_limbs("n", 0)) == []
