"""A fault for each audit rule, planted in a pool's server or files: that one and no other.

A fault in what a record says is committed as the pool would commit it, so that journal, indexes and sums
agree with it and only the rule about its content can object.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tests.archived_trades import DAY_US, applied_at, closed_trade
from tests.loose_trades import buy, entry
from tests.store_changes import change
from tradepool import TradePool, commanding
from tradepool.archive.parts import drop_rows
from tradepool.audit.rules.ledger_rules import EXPIRED_MAX_US
from tradepool.clock import now_us
from tradepool.files.snapshot_info import SNAPSHOT_NAME, FileInfo, load_snapshot
from tradepool.journaling.service import JournalService
from tradepool.model import codec
from tradepool.model.books import Books
from tradepool.model.ids import mint_id
from tradepool.model.kinds import Status
from tradepool.model.ledger import Balance, Hold, Ledger, ledger_id, next_expiry
from tradepool.model.pnl import DERIVED_FIELDS
from tradepool.model.trade import Trade
from tradepool.server.embedded import EmbeddedServer
from tradepool.settings import Settings
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.plan import RecordChange

HOUR_US = 3_600_000_000
HOUR_S = 3600
LATER_US = 2 * HOUR_US
"""How much later than now the pool with a stuck outbox is audited."""


@contextmanager
def opened(server: EmbeddedServer, folder: Path) -> Iterator[tuple[TradePool, JournalService]]:
    """A pool of two shards on the server, which is emptied for it, and who keeps its journal."""
    settings = Settings(redis_url=server.url, data_dir=folder, shard_count=2)
    with closing(server.client()) as client:
        client.flushall()
        client.script_flush()
        with closing(JournalService(settings, client)) as journal:
            journal.recover()
            journal.start()
            with TradePool.connect(settings) as pool:
                yield pool, journal


class Scene:
    """A sound user: a closed trade, an open one with a key, a balance, a part of it reserved."""

    def __init__(self, pool: TradePool, journal: JournalService, patch: Any, user: str = "ann") -> None:
        self.user = user
        self.pool = pool
        self.journal = journal
        self.patch = patch
        self.redis = pool.redis
        self.keys: Keys = pool.store.keys
        self.shard = self.keys.shard_of_user(user)
        self.given: dict[str, Any] = {}
        """What the audit of all is called with."""
        self.open_id = self.filled(idempotency_key="k1")
        self.closed_id = self.closed()
        pool.update_available_tokens(user, {"USDT": 50})
        pool.reserve_tokens(user, "USDT", 1, "order-1", HOUR_S)

    def filled(self, **fields: Any) -> str:
        """An open trade whose entry the venue has filled; its id."""
        trade_id = self.pool.add_trade(buy(user_id=self.user, **fields)).trade_id
        self.pool.add_fill(trade_id, entry(f"f-{trade_id}"))
        return trade_id

    def closed(self, **fields: Any) -> str:
        """A round trip that made 10; its id."""
        trade_id = self.filled(**fields)
        self.pool.close_trade(trade_id, "110")
        return trade_id

    def archived(self) -> str:
        """An archived trade; its id."""
        trade_id = closed_trade(self.pool, self.user, days_ago=20)
        assert self.pool.archive_closed_trades(self.journal.journal).archived == 1
        return trade_id

    def records(self, record_id: str) -> str:
        """The key of the hash that holds the record."""
        return self.keys.records(self.shard, self.keys.bucket_of(record_id))

    def value(self, record_id: str) -> bytes:
        """The record as it is stored."""
        return self.pool.redis.hget(self.records(record_id), record_id)

    def put(self, record_id: str, value: bytes) -> None:
        """Overwrite a record behind the pool's back."""
        self.redis.hset(self.records(record_id), record_id, value)

    def forge(self, trade_id: str, **fields: Any) -> None:
        """Commit a next version of the trade that no command would make."""
        before = self.pool.get_trade(trade_id)
        after = msgspec.structs.replace(before, version=before.version + 1, **fields)
        self.pool.store.commit(self.shard, [change(before, after)])

    def forge_under(self, trade_id: str, shown: Trade) -> None:
        """The same, where indexes and claims go on as if the trade had not changed."""
        before = self.pool.get_trade(trade_id)
        same = msgspec.structs.replace(before, version=before.version + 1)
        made = change(before, same)
        after = codec.pack_trade(msgspec.structs.replace(shown, version=same.version))
        self.pool.store.commit(self.shard, [msgspec.structs.replace(made, after=after)])

    def forge_ledger(self, account_id: str = "other", **fields: Any) -> None:
        """Commit a ledger that no command would make."""
        ledger = Ledger(user_id=self.user, account_id=account_id, version=1, updated_at=now_us(), **fields)
        made = RecordChange(
            kind=codec.LEDGER_KIND,
            record_id=ledger_id(self.user, account_id),
            user_id=self.user,
            before=None,
            after=codec.pack_ledger(ledger),
            next_expiry=next_expiry(ledger),
            command_id="forged",
        )
        self.pool.store.commit(self.shard, [made])

    def at(self, command: Any, ago_us: int) -> str:
        """Have the command applied as one of some time ago; the trade's id."""
        return applied_at(self.pool, command, now_us() - ago_us).trade_id


Plant = Callable[[Scene], object]


def hold(**fields: Any) -> Hold:
    now = now_us()
    given = {"asset": "USDT", "amount": Decimal(1), "reserved_at": now, "expires_at": now + HOUR_US}
    return Hold(**given | fields)


def books_with_a_mistake(scene: Scene) -> None:
    gain = Books._price_gain
    scene.patch.setattr(Books, "_price_gain", lambda self: gain(self) + 1)
    wrong = scene.pool.get_trade(scene.closed())
    figures = {name: getattr(wrong, name) for name in DERIVED_FIELDS if name.startswith(("pnl", "roi"))}
    scene.forge(scene.closed_id, **figures)


def two_with_one_key(scene: Scene) -> None:
    second = scene.filled(idempotency_key="k2")
    scene.forge_under(second, msgspec.structs.replace(scene.pool.get_trade(second), idempotency_key="k1"))
    scene.redis.hdel(scene.keys.idempotency(scene.shard, scene.user), "k2")


def two_with_one_fill(scene: Scene) -> None:
    second = scene.filled()
    trade = scene.pool.get_trade(second)
    theirs = scene.pool.get_trade(scene.open_id).fills[0].fill_id
    fills = (msgspec.structs.replace(trade.fills[0], fill_id=theirs),)
    scene.forge_under(second, msgspec.structs.replace(trade, fills=fills))
    claim = scene.keys.fill_claim(trade.exchange, trade.account_id, trade.symbol, trade.fills[0].fill_id)
    scene.redis.hdel(scene.keys.fill_claims(scene.shard, scene.user), claim)


def two_of_one_order(scene: Scene) -> None:
    for number in (1, 2):
        trade_id = scene.pool.add_trade(buy(user_id=scene.user)).trade_id
        scene.pool.add_fill(trade_id, entry(f"o{number}", order_id="order"))


def a_circle(scene: Scene) -> None:
    scene.forge(scene.open_id, related_trade_id=scene.closed_id)
    scene.forge(scene.closed_id, related_trade_id=scene.open_id)


def a_trade_of_anothers(scene: Scene) -> None:
    scene.forge(scene.open_id, related_trade_id=scene.pool.add_trade(buy(user_id="bob")).trade_id)


def a_flipped_byte(scene: Scene) -> None:
    value = bytearray(scene.value(scene.closed_id))
    value[codec.HEADER_CHARS + 30] ^= 1
    scene.put(scene.closed_id, bytes(value))


def a_wrong_header(scene: Scene) -> None:
    before = scene.pool.get_trade(scene.open_id)
    after = msgspec.structs.replace(before, version=before.version + 1)
    value = codec.pack(after.version, codec.encode_trade(after), codec.TRADE_KIND, Status.REJECTED.code)
    scene.pool.store.commit(scene.shard, [msgspec.structs.replace(change(before, after), after=value)])


def a_ghost(scene: Scene) -> None:
    body = codec.encode_trade(scene.pool.get_trade(scene.open_id))
    ghost = codec.decode_trade(
        body.replace(scene.open_id.encode(), f"ghost-{scene.user}".encode()).replace(b'"k1"', b'"k9"')
    )
    scene.put(f"ghost-{scene.user}", codec.pack_trade(ghost))
    scene.redis.zadd(scene.keys.user_index(scene.shard, scene.user), {f"ghost-{scene.user}": 7})


def other_content(scene: Scene) -> None:
    trade = msgspec.structs.replace(scene.pool.get_trade(scene.closed_id), strategy="forged")
    scene.put(scene.closed_id, codec.pack_trade(trade))


def a_lost_route(scene: Scene) -> None:
    scene.filled(trade_id="7")
    scene.pool.store.move_route("7", 1 + scene.pool.store.routes(["7"])[0])


def a_commit_that_nobody_journals(scene: Scene) -> None:
    scene.journal.close()
    before = scene.pool.get_trade(scene.open_id)
    after = msgspec.structs.replace(before, version=before.version + 1)
    scene.pool.store.commit(scene.shard, [change(before, after)])
    audits = scene.pool._services.audit
    scene.patch.setattr(audits, "_now_us", lambda: now_us() + LATER_US // 4)
    scene.patch.setattr("tradepool.audit.digest_audit._STUCK_WAIT_S", 0.01)


def a_row_of_the_book(scene: Scene) -> None:
    row = {
        "trade_id": scene.open_id,
        "shard": 0,
        "what": "missing_in_book",
        "book": None,
        "store": "cost 100",
    }
    scene.pool.store.write_book_check(0, 1, json.dumps({"differences": [row]}).encode())


def a_damaged_journal(scene: Scene) -> None:
    path = scene.pool.settings.data_dir / "trade_pool.log"
    text = bytearray(path.read_bytes())
    text[text.index(b'"user_id"')] ^= 1
    path.write_bytes(bytes(text))


def a_damaged_snapshot(scene: Scene) -> None:
    scene.pool.write_snapshot(scene.journal.journal)
    path = scene.pool.settings.data_dir / "trades.json"
    path.write_bytes(path.read_bytes().replace(b'"kraken"', b'"kroken"', 1))


def another_snapshot(
    scene: Scene, old: bytes = b'"entry_cost":"100"', new: bytes = b'"entry_cost":"101"'
) -> None:
    """One whose trades were changed, and that vouches for them; `old` is a pattern."""
    scene.pool.write_snapshot(scene.journal.journal)
    folder = scene.pool.settings.data_dir
    text, changes = re.subn(old, new, (folder / "trades.json").read_bytes(), count=1)
    assert changes == 1
    (folder / "trades.json").write_bytes(text)
    info = load_snapshot(folder)
    assert info is not None
    digest = hashlib.sha256(text).hexdigest()
    trades = FileInfo(count=text.count(b"\n") - 2, bytes=len(text), sha256=digest)
    (folder / SNAPSHOT_NAME).write_bytes(msgspec.structs.replace(info, trades=trades).sealed().text())


def part_of(scene: Scene) -> Any:
    return next((scene.pool.settings.data_dir / "archive").glob("day=*/*.parquet"))


def a_lost_row(scene: Scene) -> None:
    trade_id = scene.archived()
    drop_rows(part_of(scene), [trade_id])


def another_row(scene: Scene) -> None:
    left = codec.unpack_archived(scene.value(scene.archived()))
    after = msgspec.structs.replace(left, digest="0" * 16)
    made = RecordChange(
        kind=codec.ARCHIVED_KIND,
        record_id=left.trade_id,
        user_id=scene.user,
        before=codec.pack_archived(left),
        after=codec.pack_archived(after),
        command_id="forged",
    )
    scene.pool.store.commit(scene.shard, [made])


def a_wrong_type(scene: Scene) -> None:
    name = scene.keys.counters(scene.shard, scene.user)
    scene.redis.delete(name)
    scene.redis.set(name, "7")


def told(scene: Scene, amount: str, price: str, free: str) -> None:
    place = {"user_id": scene.user, "exchange": "kraken", "symbol": "BTC/USDT"}
    scene.given["venue"] = {
        "at": now_us(),
        "positions": [place | {"amount": amount, "price": price}],
        "balances": [{"user_id": scene.user, "asset": "USDT", "free": free}],
    }


def a_bucket_by_another_name(scene: Scene) -> None:
    sums = scene.keys.digest(scene.shard)
    names = {f"{number:x}".encode() for number in range(BUCKETS)}
    kept = scene.redis.hgetall(sums)
    used, free = min(names & kept.keys()), min(names - kept.keys())
    scene.redis.hset(sums, free, kept[used])
    scene.redis.hdel(sums, used)


def _elsewhere(scene: Scene) -> Iterator[str]:
    """Users of other shards than the first."""
    names = (f"user-{number}" for number in range(100))
    return (name for name in names if scene.keys.shard_of_user(name) != 0)


PLANTS: dict[str, Plant] = {
    "digest": lambda s: s.redis.hset(
        s.keys.digest(s.shard), f"{s.keys.bucket_of(s.open_id):x}", "0" * 16 + ":7"
    ),
    "bucket_sums": a_bucket_by_another_name,
    "outbox_stuck": a_commit_that_nobody_journals,
    "outbox_unreadable": lambda s: (s.journal.close(), s.redis.xadd(s.keys.outbox(s.shard), {"x": "junk"})),
    "book": a_row_of_the_book,
    "journal_damaged": a_damaged_journal,
    "snapshot_damaged": a_damaged_snapshot,
    "snapshot_different": another_snapshot,
    "archive_missing": a_lost_row,
    "archive_damaged": lambda s: (s.archived(), part_of(s).write_bytes(part_of(s).read_bytes()[:-7])),
    "archive_different": another_row,
    "corrupt_record": a_flipped_byte,
    "record_header": a_wrong_header,
    "missing_in_redis": lambda s: s.redis.hdel(s.records(s.closed_id), s.closed_id),
    "stale_in_redis": lambda s: s.put(
        s.closed_id, codec.pack_trade(s.pool.get_trade_history(s.closed_id)[0])
    ),
    "different_in_redis": other_content,
    "missing_in_journal": a_ghost,
    "quantities": lambda s: s.forge(s.open_id, amount=Decimal("0.5"), amount_ordered=Decimal(1)),
    "lifecycle": lambda s: s.forge(s.open_id, status=Status.SUBMITTED),
    "time_order": lambda s: s.forge(s.closed_id, closed_at=1),
    "recomputed_figures": lambda s: s.forge(s.open_id, open_fee=Decimal(5)),
    "cash_identity": books_with_a_mistake,
    "reported_pnl": lambda s: s.pool.update_trade_pnl(s.closed_id, "999"),
    "unpriced_fee": lambda s: s.pool.add_fill(
        s.pool.add_trade(buy(user_id=s.user)).trade_id, entry("b", fee="0.1", fee_currency="BNB")
    ),
    "trade_schema": lambda s: s.forge(s.open_id, schema_version=99),
    "clock_skew": lambda s: s.forge(s.open_id, updated_at=now_us() + DAY_US),
    "stale_pending": lambda s: s.at(
        commanding.add_trade(buy(user_id=s.user, created_at=now_us() - 8 * DAY_US)), 8 * DAY_US
    ),
    "open_without_update": lambda s: s.at(
        commanding.add_trade(buy(user_id=s.user, created_at=now_us() - 99 * DAY_US, status="filled")),
        99 * DAY_US,
    ),
    "duplicate_key": two_with_one_key,
    "duplicate_fill": two_with_one_fill,
    "duplicate_order": two_of_one_order,
    "related_missing": lambda s: s.at(
        commanding.add_trade(buy(user_id=s.user, created_at=now_us() - LATER_US, related_trade_id="nobody")),
        LATER_US,
    ),
    "related_foreign": a_trade_of_anothers,
    "related_cycle": a_circle,
    "balance_conservation": lambda s: s.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(2))}, reservations={"new": hold()}
    ),
    "frozen_asset": lambda s: s.pool.update_available_tokens(s.user, {"USDT": "0.5"}),
    "reservation_key": lambda s: s.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(1))}, reservations={"a\nb": hold()}
    ),
    "ledger_schema": lambda s: s.forge_ledger(
        schema_version=99,
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(1))},
        reservations={"new": hold()},
    ),
    "expired_reservation": lambda s: s.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(1))},
        reservations={"old": hold(expires_at=now_us() - EXPIRED_MAX_US - HOUR_US)},
    ),
    "stale_balance": lambda s: s.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(1), as_of=now_us() - 8 * DAY_US)},
        reservations={"new": hold()},
    ),
    "orphan_reservation": lambda s: s.forge_ledger(
        assets={"USDT": Balance(free=Decimal(3), reserved=Decimal(1))},
        reservations={mint_id(s.user, at_us=now_us(), random_bits=7): hold(reserved_at=now_us() - LATER_US)},
    ),
    "expiry_missing": lambda s: s.redis.zadd(s.keys.expiries(s.shard), {ledger_id(s.user): 7}),
    "expiry_extra": lambda s: s.redis.zadd(s.keys.expiries(s.shard), {f"{s.user}\x1fother": 7}),
    "index_missing": lambda s: s.redis.zrem(s.keys.user_index(s.shard, s.user), s.closed_id),
    "index_extra": lambda s: s.redis.zadd(s.keys.user_index(s.shard, s.user), {f"ghost-{s.user}": 7}),
    "index_order": lambda s: s.redis.zadd(s.keys.user_index(s.shard, s.user), {s.closed_id: 7}),
    "open_set": lambda s: s.redis.zadd(
        s.keys.open_trades(s.shard), {s.keys.open_member(s.user, s.closed_id): 0}
    ),
    "recent_missing": lambda s: s.redis.zrem(s.keys.recent(s.shard), s.closed_id),
    "quarantine_list": lambda s: (
        s.pool.quarantine(s.open_id, "looks wrong"),
        s.redis.zrem(s.keys.quarantined(s.shard), s.open_id),
    ),
    "route": a_lost_route,
    "claim_missing": lambda s: s.redis.hdel(s.keys.idempotency(s.shard, s.user), "k1"),
    "claim_extra": lambda s: s.redis.hset(s.keys.idempotency(s.shard, s.user), "k9", s.closed_id),
    "summary_fold": lambda s: s.redis.hincrby(s.keys.counters(s.shard, s.user), "real|USDT|pnl", 1),
    "key_ttl": lambda s: s.redis.expire(s.keys.counters(s.shard, s.user), HOUR_S),
    "key_type": a_wrong_type,
    "key_value": lambda s: s.redis.hset(s.keys.digest(s.shard), "0", "seven"),
    "unknown_key": lambda s: s.redis.set("tp:{00}:c:" + next(_elsewhere(s)), 1),
    "venue_quantity": lambda s: told(s, "2", "100", "50"),
    "venue_average_price": lambda s: told(s, "1", "101", "50"),
    "venue_balance": lambda s: told(s, "1", "100", "51"),
}
"""Rule → what plants a fault that it, and only it, finds."""
