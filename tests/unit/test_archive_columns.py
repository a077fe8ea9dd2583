"""The archive's columns: typed for SQL, beside the exact JSON; read back to the last byte."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from tests.store_changes import filled, new_trade
from tradepool.archive.columns import COLUMNS, IN_RECORD_ONLY, Stored
from tradepool.archive.database import connected, parts_table
from tradepool.archive.folder import ArchiveFolder, day_of
from tradepool.archive.parts import drop_rows, read_rows, write_part
from tradepool.archive.reading import Archive
from tradepool.errors import Corrupt, ResourceUnavailable
from tradepool.model.archived import archived
from tradepool.model.codec import digest_of, encode_trade
from tradepool.model.kinds import Market, Role, Source, Status, TradeOutcome
from tradepool.model.trade import DERIVED_NAMES, Trade
from tradepool.model.trade_filter import TradeFilter

DAY = "2026-11-01"
DAY_US = 86_400_000_000


def stored_trade(**fields):
    trade = new_trade(**fields)
    return Stored(trade, encode_trade(trade))


@pytest.fixture
def folder(tmp_path):
    return ArchiveFolder(tmp_path / "archive")


@pytest.fixture
def archive(folder):
    opened = Archive(folder.path)
    yield opened
    opened.close()


def written(folder, *trades, day=DAY):
    folder.lock().close()
    part = folder.next_part(day)
    assert write_part(part, trades) == len(trades)
    return part


def row_of(folder, found):
    return row_in(written(folder, found))


def row_in(part):
    with connected() as database:
        answer = database.execute(f"SELECT * FROM {parts_table()}", [str(part)])
        names = [column[0] for column in answer.description]
        (row,) = answer.fetchall()
    assert tuple(names) == COLUMNS
    return dict(zip(names, row, strict=True))


def exact(trade):
    return {name: getattr(trade, name) for name in (*Trade.__struct_fields__, *DERIVED_NAMES)}


def assert_row_shows(row, trade):
    """Every column but the nullable or rounded ones is the trade's own value."""
    fields = exact(trade)
    for name, value in row.items():
        if (
            name.endswith("_at")
            or name in ("pnl_as_of", "inexact", "digest", "record")
            or name in row["inexact"]
        ):
            continue
        assert value == fields[name], name


def test_every_field_of_a_trade_has_a_column_or_is_left_to_the_record():
    fields = set(Trade.__struct_fields__)
    assert fields - set(COLUMNS) == IN_RECORD_ONLY
    assert set(DERIVED_NAMES) <= set(COLUMNS)


def test_a_trade_of_defaults_shows_them_although_its_json_leaves_them_out(folder):
    found = stored_trade()
    row = row_of(folder, found)
    assert b"leverage" not in found.body
    assert row["leverage"] == 1
    assert row["inexact"] == []
    assert_row_shows(row, found.trade)


def test_a_full_trade_shows_its_values(folder):
    entered = new_trade(
        symbol="BTC/USDT:USDT", market=Market.LINEAR, amount=Decimal("0.00000001"), leverage=Decimal("2.5"),
        strategy="Zwölf's \"best\"", signals={"a": [1, None]}, deposit=Decimal("1e19"), fee_unpriced=True,
        close_reason="naïve \\ ✓", symbol_group="x", success_label="y", related_trade_id="r",
        idempotency_key="key", amount_ordered=Decimal(3), pnl_as_of=1_700_000_000_000_001,
        pnl_reported=Decimal("-0.000000000000000001"), stop_loss=Decimal(1), roi_reported=Decimal(2),
    )  # fmt: skip
    trade = filled(filled(entered), Role.EXIT, fill_id="x", price=110)
    trade = msgspec.structs.replace(trade, outcome=TradeOutcome.LOSS, source=Source.BACKTEST)
    row = row_of(folder, Stored(trade, encode_trade(trade)))
    assert_row_shows(row, trade)
    assert row["status"] == Status.COMPLETED
    assert row["created_at"].replace(tzinfo=UTC) == datetime.fromtimestamp(trade.created_at / 1e6, tz=UTC)
    assert row["pnl_as_of"].microsecond == 1
    assert row["record"].encode() == encode_trade(trade)
    assert row["digest"] == digest_of(encode_trade(trade))


def test_a_number_that_does_not_fit_is_rounded_or_null_and_named(folder):
    wide, fine = Decimal("123456789012345678901.5"), Decimal("0.1234567890123456785")
    row = row_of(folder, stored_trade(amount=wide, entry_cost=fine, price=Decimal("99999999999999999999.5")))
    assert row["amount"] is None
    assert row["entry_cost"] == Decimal("0.123456789012345679")
    assert row["price"] == Decimal("99999999999999999999.5")
    assert sorted(row["inexact"]) == ["amount", "entry_cost"]


def test_a_trade_is_read_back_as_it_was_stored(folder, archive):
    found = [stored_trade(user_id=f"user {number}", extra={"ä": "\n'\"\u0001"}) for number in range(5)]
    written(folder, *found)
    for item in found:
        left = archived(item.trade, DAY, digest_of(item.body))
        assert archive.find(left) == item
    assert {item.body for item in archive.stream(TradeFilter())} == {item.body for item in found}


def test_what_the_archive_lacks_is_corrupt_and_names_the_day(folder, archive):
    written(folder, stored_trade())
    with pytest.raises(Corrupt, match="restore that day"):
        archive.find(archived(new_trade(), DAY))


def test_another_trade_under_the_same_id_and_version_is_not_taken(folder, archive):
    found = stored_trade()
    written(folder, found)
    with pytest.raises(Corrupt, match="restore that day"):
        archive.find(archived(found.trade, DAY, "0" * 16))


def test_a_record_that_was_changed_in_the_file_is_corrupt(folder, archive):
    found = stored_trade(strategy="one")
    part = written(folder, found)
    with connected() as database:
        database.execute(
            f"COPY (SELECT * REPLACE (replace(record, 'one', 'two') AS record) FROM read_parquet('{part}')) "
            f"TO '{part}.2' (FORMAT parquet)"
        )
    shutil.move(f"{part}.2", part)
    with pytest.raises(Corrupt, match="does not match its digest"):
        list(archive.stream(TradeFilter()))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000])
def test_a_damaged_file_is_corrupt_or_unreadable(folder, archive, content):
    written(folder, stored_trade()).write_bytes(content)
    with pytest.raises((Corrupt, ResourceUnavailable), match="archive"):
        list(archive.stream(TradeFilter()))


def test_rows_are_dropped_and_an_emptied_part_stays(folder, archive):
    found = [stored_trade() for _ in range(3)]
    part = written(folder, *found)
    drop_rows(part, [found[0].trade.trade_id])
    assert {row.trade_id for row in read_rows(part)} == {item.trade.trade_id for item in found[1:]}
    drop_rows(part, [found[1].trade.trade_id])
    assert row_in(part)["record"].encode() == found[2].body
    drop_rows(part, [found[2].trade.trade_id])
    assert read_rows(part) == []
    assert list(archive.stream(TradeFilter())) == []
    assert sorted(entry.name for entry in part.parent.iterdir()) == [part.name, f"{part.name}.sha256"]


def test_a_write_that_fails_leaves_no_part_and_no_lines(folder, archive):
    folder.lock().close()
    part = folder.next_part(DAY)

    def broken():
        yield stored_trade()
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceUnavailable, match="No space left"):
        write_part(part, broken())
    assert list(part.parent.iterdir()) == []


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory):
    """Twelve days of trades that lived for a while each, and the trades in the order of a list."""
    folder = ArchiveFolder(tmp_path_factory.mktemp("long") / "archive")
    days: dict[str, list[Stored]] = {}
    for ended in range(12):
        for lived in (0, 3, ended):
            created = 1_700_000_000_000_000 + (ended - lived) * DAY_US
            days.setdefault(day_of(created + lived * DAY_US), []).append(stored_trade(created_at=created))
    for day, found in days.items():
        written(folder, *found, day=day)
    every = [item for found in days.values() for item in found]
    archive = Archive(folder.path)
    yield archive, sorted(every, key=lambda item: (item.trade.created_at, item.trade.trade_id), reverse=True)
    archive.close()


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_pages_are_newest_first_over_all_days_however_long_trades_lived(long_archive, limit):
    """A trade stands under the day it ended on, which says little about the day it was created on."""
    archive, expected = long_archive
    read = []
    after = None
    while len(read) < 15 and (page := archive.page(TradeFilter(user_id="ann"), limit, after)):
        read += page
        after = page[-1].trade.created_at, page[-1].trade.trade_id
    assert read == expected[: len(read)]
    assert len(read) >= 15
