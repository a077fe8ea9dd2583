"""What one step of the pure model costs, in µs on one core.

    python bench/model_steps.py [TRADES]

Each step is run over TRADES different trades, in rounds that alternate between the steps; the least
round is what the step costs, the median is what it cost beside whatever else ran on the machine. `add`
to `count` are what every durable add goes through before any server is asked; `whole` is the three of
them in a row. `decode` reads and validates a record's JSON; `unpack` decompresses it first.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tradepool.model import changes, codec
from tradepool.model.commands import AddFill, AddTrade, CloseTrade, TradeCommand, UpdateTrade, UpdateTradePnl
from tradepool.model.counters import contribution
from tradepool.model.ids import derive_id
from tradepool.model.trade import Trade

ROUNDS = 200
AS_OF = 1_750_000_000_000_000


class Step(NamedTuple):
    """One kind of work, over the trades it is done to."""

    name: str
    work: Callable[[], None]


def fields_of(number: int) -> dict[str, object]:
    """What bots usually send."""
    return {
        "user_id": f"user-{number % 20}",
        "exchange": "kraken",
        "symbol": ("BTC/USDT", "ETH/USDT", "SOL/USDT")[number % 3],
        "side": "buy",
        "amount": f"0.{number % 9 + 1}",
        "price": 20_000 + number % 500,
        "status": "filled",
        "strategy": "momentum",
        "signals": {"rsi": number % 3 - 1, "combined": 1},
        "market_conditions": {"trend": "flat", "volatility": 0.42},
    }


def added(number: int, **fields: object) -> tuple[AddTrade, str]:
    """The command that adds the trade of that number, and the id it gets."""
    trade = fields_of(number) | fields
    command = AddTrade(command_id=f"add-{number}", as_of=AS_OF + number, trade=trade)
    return command, derive_id(str(trade["user_id"]), at_us=command.as_of, seed=command.command_id)


def new_trade(command: AddTrade, trade_id: str) -> Trade:
    """What the add makes."""
    return changes.add(command, trade_id=trade_id, existing=None).trade


def whole(command: AddTrade, trade_id: str) -> None:
    """Everything the model does for one add."""
    trade = new_trade(command, trade_id)
    codec.pack_trade(trade)
    contribution(trade)


def later_commands(number: int, trade_id: str) -> dict[str, TradeCommand]:
    """A command of each kind, for a trade that is there."""
    known: dict[str, Any] = {
        "command_id": f"later-{number}",
        "as_of": AS_OF + number + 9,
        "trade_id": trade_id,
    }
    fill = {"fill_id": f"f{number}", "role": "entry", "amount": "0.1", "price": "20001.5", "fee": "0.02"}
    return {
        "fill": AddFill(**known, fill=fill),
        "update": UpdateTrade(**known, changes={"stop_loss": "19000", "take_profit": "22000.5"}),
        "close": CloseTrade(**known, price="21000.5", fee="1.5"),
        "report": UpdateTradePnl(**known, pnl="12.5"),
    }


def over(step: Callable[..., object], *columns: Sequence[object]) -> Callable[[], None]:
    """The work of one round."""
    rows = list(zip(*columns, strict=True))

    def work() -> None:
        for row in rows:
            step(*row)

    return work


def steps(count: int) -> Iterator[Step]:
    """Every step over `count` trades."""
    adds = [added(number) for number in range(count)]
    commands, ids = [command for command, _ in adds], [trade_id for _, trade_id in adds]
    filled = [new_trade(*add) for add in adds]
    pending = [new_trade(*added(number, status="pending")) for number in range(count)]
    later = [later_commands(number, trade_id) for number, trade_id in enumerate(ids)]
    values = [codec.pack_trade(trade) for trade in filled]
    closed = [changes.change(trade, step["close"]).trade for trade, step in zip(filled, later, strict=True)]
    yield Step("whole", over(whole, commands, ids))
    yield Step("add", over(new_trade, commands, ids))
    yield Step("pack", over(codec.pack_trade, filled))
    yield Step("count", over(contribution, filled))
    for kind, before in (("fill", pending), ("update", filled), ("close", filled), ("report", filled)):
        yield Step(kind, over(changes.change, before, [step[kind] for step in later]))
    yield Step("count a closed one", over(contribution, closed))
    yield Step("unpack", over(codec.unpack_trade, values))
    bodies = [codec.encode_trade(trade) for trade in filled]
    yield Step(f"decode {len(bodies[0])} B of JSON", over(codec.decode_trade, bodies))
    yield Step("read header", over(codec.read_header, values))


def main(count: int) -> None:
    """Alternate between the steps and print what each took."""
    measured = [(step, list[float]()) for step in steps(count)]
    for _ in range(ROUNDS):
        for step, seconds in measured:
            started = time.perf_counter()
            step.work()
            seconds.append(time.perf_counter() - started)
    print(f"{count} trades a round, {ROUNDS} rounds; µs a trade")
    print(f"{'':<24}{'least':>8}{'median':>8}")
    for step, seconds in measured:
        least, median = min(seconds) / count * 1e6, statistics.median(seconds) / count * 1e6
        print(f"{step.name:<24}{least:>8.2f}{median:>8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
