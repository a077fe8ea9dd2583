"""Rubbish in ccxt's lists: each row is accounted for, and nothing but a refusal comes of it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.import_files import MemoryPool
from tradepool.importers import Format, import_file

ROW = {
    "id": "1",
    "order": "o",
    "symbol": "ETH/USDT:USDT",
    "side": "buy",
    "amount": 1,
    "price": 2,
    "cost": 2,
    "timestamp": 1_700_000_000_000,
    "fee": {"cost": 0.1, "currency": "USDT"},
}
ORDER = {"filled": 1, "remaining": 0, "average": 2, "status": "closed", "trades": [], "fees": []}
NAMES = [*ROW, *ORDER, "info", "datetime", "lastTradeTimestamp", "contractSize", "positionSide"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["sell", "BTC/USD:BTC", "ETH/USDT", "short", "open", "canceled", "\ud800", "9" * 5000])
)
RUBBISH = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["cost", "currency", "id", "amount", "price"]), inner, max_size=3)
    ),
    max_leaves=4,
)
ROWS = st.lists(
    st.builds(
        lambda number, base, changes: base | {"id": number} | changes,
        st.sampled_from(["1", "2", "3", "4"]),
        st.sampled_from([ROW, ROW | ORDER, ROW | {"side": "sell"}]),
        st.dictionaries(st.sampled_from(NAMES), RUBBISH, max_size=3),
    )
    | RUBBISH,
    min_size=1,
    max_size=5,
)


@settings(max_examples=30)
@given(rows=ROWS)
def test_every_row_of_a_rubbish_list_is_accounted_for(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rubbish") / "rows.json"
    path.write_text(json.dumps(rows))
    pool = MemoryPool()
    for _ in range(2):
        report = import_file(pool, path, file_format=Format.CCXT, user="anna")
        told = report.applied + report.merged + report.duplicate + len(report.refused) + len(report.idle)
        assert report.read == told == len(rows)
        json.dumps(report.to_dict(), ensure_ascii=False).encode()
