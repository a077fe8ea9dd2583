"""Every worker is restarted in turn while bots are at work, as an upgrade does it."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.fleet.conftest import Fleet
from tests.fleet.trades import journaled_versions, new_trades
from tests.waiting import eventually
from tradepool.client import PoolClient
from tradepool.errors import TradePoolError

CONFIRM_S = 60.0
CHUNK = 50
PENDING_MAX = 1000


class Bot:
    """Adds trades from a thread until it is told to stop; keeps what went wrong."""

    def __init__(self, client: PoolClient) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.trade_ids: list[str] = []
        self.errors: list[TradePoolError] = []
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            if self._client.pending() > PENDING_MAX:
                continue
            try:
                self.trade_ids += self._client.add_trades(new_trades(CHUNK))
            except TradePoolError as error:
                self.errors.append(error)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_error_reaches_a_bot_while_every_worker_is_restarted_in_turn(bare_fleet: Fleet):
    for queues in ("files", "trades", "trades", "tokens,audit"):
        bare_fleet.start(queues)
    for node in bare_fleet.nodes:
        node.wait_ready()
    # Rarely: a message that a worker gave back must come again by itself.
    with PoolClient.connect(bare_fleet.settings, batch_max=20, linger_ms=1, resend_s=1000) as client:
        bot = Bot(client)
        try:
            for node in bare_fleet.nodes:
                handed = len(bot.trade_ids)
                eventually(lambda handed=handed: len(bot.trade_ids) > handed + CHUNK)
                node.process.kill(signal.SIGTERM)
                assert node.process.exit_code == 0, node.logs()
                said = node.logs().count(" ready.")
                node.process.restart()
                eventually(lambda node=node, said=said: node.logs().count(" ready.") > said, CONFIRM_S)
        finally:
            bot.stop()
        broker = bare_fleet.pool.redis
        waiting = (broker.llen("trades"), broker.hlen("unacked"))
        assert client.flush(CONFIRM_S), f"{client.pending()} commands under way, messages were {waiting}"
        assert (bot.errors, client.rejections) == ([], [])
    versions = journaled_versions(bare_fleet.settings)
    assert dict(versions) == {(trade_id, 1): 1 for trade_id in bot.trade_ids}
    eventually(lambda: broker.hlen("unacked") == 0)
    assert broker.llen("dead") == 0
