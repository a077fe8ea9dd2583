"""Where nothing is wrong nothing is found: in a pool of all kinds of trades, and while bots go on trading."""

from __future__ import annotations

import pytest

from tests.audit_runs import TRADES, clean_runs
from tests.varied_trades import varied_trades
from tradepool import TradePool

TRADES_FEW = 2_000
RUNS = 5


def test_a_pool_of_all_kinds_of_trades_has_no_findings(server_binary, tmp_path):
    with TradePool.embedded(tmp_path / "pool", shard_count=8) as pool:
        pool.add_trades(list(varied_trades(TRADES_FEW, 40)))
        pool.write_snapshot()

        for level in ("digest", "standard", "deep"):
            report = pool.check_all_trades(level=level)
            assert (report.findings, report.undecided) == ((), ())
        assert report.checked == {"shards": 8, "records": TRADES_FEW}
        assert pool.check_trades("user 7").ok


@pytest.mark.slow
def test_a_small_pool_has_no_findings_while_everything_goes_on(server_binary, tmp_path):
    runs = list(clean_runs(tmp_path / "pool", trades=TRADES_FEW, runs=RUNS, seed=1))

    assert [run.findings for run in runs] == [()] * RUNS
    assert all(run.records > TRADES_FEW for run in runs[1:])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_large_pool_has_no_findings_while_everything_goes_on(server_binary, tmp_path):
    runs = list(clean_runs(tmp_path / "pool", trades=TRADES, runs=RUNS))

    assert [run.findings for run in runs] == [()] * RUNS
    assert runs[-1].records > TRADES
