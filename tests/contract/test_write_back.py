"""Several who write marks, of parts of the pool or of all of it, and those who read them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from tests.pnl_oracle import position
from tradepool.marking.write_back import WriteBack
from tradepool.pnl.book import Book
from tradepool.pnl.marks import Marks, mark

USERS = tuple(f"user-{n}" for n in range(40))
PRICES = {"A": Decimal(3), "B": Decimal("0.5")}
TICKS = 60


def marks_of(store, shards, at: int, prices=PRICES) -> Marks:
    """The marks of two positions of each user of `shards`."""
    users = [user_id for user_id in USERS if store.keys.shard_of_user(user_id) in shards]
    rows = [
        position(f"{user_id}-{symbol}", "1", symbol=symbol, user_id=user_id)
        for user_id in users
        for symbol in ("A", "B")
    ]
    return mark(Book.from_positions(rows), prices, at)


def write_parts(store, parts: int, at: int, *, only: int | None = None, **options) -> None:
    for part in range(parts) if only is None else (only,):
        shards = range(part, store.keys.shard_count, parts)
        WriteBack(store, part, parts).write(marks_of(store, shards, at, **options))


def test_parts_write_their_own_users_and_readers_add_them_up(store):
    write_parts(store, 2, at=7)
    reader = WriteBack(store)
    for user_id in USERS:
        marks = reader.get_marks(user_id)
        assert (marks["at"], marks["by_currency"]["USDT"]["unrealised"]) == (7, "3.50000000")
    write_parts(store, 2, at=9, only=1, prices={"A": Decimal(3)})
    totals = reader.get_totals()
    assert (totals["at"], totals["users"], totals["missing"]) == (7, len(USERS), ["B"])
    ones = sum(store.keys.shard_of_user(user_id) % 2 for user_id in USERS)
    assert totals["rows"] == 2 * len(USERS) - ones
    assert totals["totals"] == {"USDT": f"{Decimal('3.5') * (len(USERS) - ones) + 3 * ones:.8f}"}
    by_symbol = reader.get_symbol_marks()["by_symbol"]
    assert by_symbol["A"]["USDT"]["long_value"] == f"{3 * len(USERS)}.00000000"
    assert by_symbol["B"]["USDT"]["count"] == len(USERS) - ones


def test_a_division_of_which_a_part_was_never_marked_does_not_count(store):
    reader = WriteBack(store)
    write_parts(store, 2, at=8, only=0)
    assert reader.get_totals() is None
    write_parts(store, 1, at=5)
    assert reader.get_totals()["at"] == 5
    write_parts(store, 2, at=8, only=1)
    assert (reader.get_totals()["at"], reader.get_totals()["users"]) == (8, len(USERS))


def test_after_another_division_the_totals_are_of_the_latest_one(store):
    reader = WriteBack(store)
    for parts, at in ((1, 5), (4, 6), (2, 7), (1, 8)):
        write_parts(store, parts, at=at)
        totals = reader.get_totals()
        assert (totals["at"], totals["rows"], totals["backend"]) == (at, 2 * len(USERS), "numpy")
        assert {reader.get_marks(user_id)["at"] for user_id in USERS} == {at}


def test_a_part_leaves_the_users_of_others_alone(store):
    write_parts(store, 1, at=5)
    write_parts(store, 2, at=6, only=1)
    for user_id in USERS:
        assert WriteBack(store).get_marks(user_id)["at"] == 5 + store.keys.shard_of_user(user_id) % 2


def test_a_reader_sees_one_tick_whoever_writes(store):
    # Each tick's price is its time, so every figure tells which tick it is of.
    ticks = {
        at: marks_of(store, store.keys.shards, at, {"A": Decimal(at), "B": Decimal(at)}) for at in (3, 5)
    }

    def write(at: int) -> None:
        writer = WriteBack(store)
        for _ in range(TICKS):
            writer.write(ticks[at])

    WriteBack(store).write(ticks[3])
    reader, seen = WriteBack(store), set()
    with ThreadPoolExecutor() as threads:
        writing = [threads.submit(write, at) for at in ticks]
        while not all(each.done() for each in writing):
            for user_id in USERS:
                marks = reader.get_marks(user_id)
                figures = marks["by_currency"]["USDT"]
                assert figures["exposure"] == figures["unrealised"] == f"{2 * marks['at']}.00000000"
                seen.add(marks["at"])
        for each in writing:
            each.result()
    assert seen
