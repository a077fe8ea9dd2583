"""What writing a trade to a file of each form costs, from the value that the store holds, in µs on one core.

    python bench/exports.py [--quick] [--json]

`by_hand_us` is a `json.dumps` of `Trade.to_dict` and a write: what a script of one's own would do.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measurement import Numbers, medians, rounds_of, run
from tradepool.archive.columns import Stored, stored
from tradepool.exporters import ExportFormat, write_export
from tradepool.model import codec
from tradepool.model.intake import trade_from_dict

ROUNDS = 5
NOW_US = 1_750_000_000_000_000


def fields_of(number: int) -> dict[str, object]:
    """A closed trade, as most of what is exported."""
    at = NOW_US + number * 1_000_000
    fills = [
        {"fill_id": f"{number}a", "role": "entry", "amount": "1.5", "price": "2000.5", "fee": "3", "at": at},
        {
            "fill_id": f"{number}b",
            "role": "exit",
            "amount": "1.5",
            "price": "2100.25",
            "fee": "3",
            "at": at + 1,
        },
    ]
    return {
        "user_id": f"user-{number % 20}",
        "exchange": "kraken",
        "symbol": "ETH/USDT",
        "side": "buy",
        "amount": "1.5",
        "strategy": "momentum",
        "signals": {"rsi": number % 3 - 1, "combined": 1},
        "fills": fills,
    }


def measure(*, quick: bool) -> Numbers:
    """Microseconds of processor time a trade, by form."""
    count = 2_000 if quick else 20_000
    made = (trade_from_dict(fields_of(n), now_us=NOW_US, trade_id=f"t{n}") for n in range(count))
    values = [codec.pack_trade(trade) for trade in made]
    with tempfile.TemporaryDirectory() as folder:
        work = {f"{form}_us": _timed(_writing(Path(folder), form, values), count) for form in ExportFormat}
        plain = _timed(lambda: _by_hand(Path(folder) / "plain", values), count)
        return medians(rounds_of(1 if quick else ROUNDS, by_hand_us=plain, **work))


def _writing(folder: Path, form: ExportFormat, values: list[bytes]) -> Callable[[], object]:
    return lambda: write_export(folder / f"all.{form}", _trades(values), form, force=True)


def _trades(values: list[bytes]) -> Iterator[Stored]:
    return (stored(value) for value in values)


def _by_hand(path: Path, values: list[bytes]) -> None:
    with path.open("w") as file:
        for found in _trades(values):
            file.write(json.dumps(found.trade.to_dict()) + "\n")


def _timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    def us_each() -> float:
        started = time.process_time()
        work()
        return (time.process_time() - started) / count * 1e6

    return us_each


if __name__ == "__main__":
    run(measure)
