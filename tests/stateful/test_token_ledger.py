"""Any order of snapshots, reservations, settlements, expiries and repeats against a plain model.

The model keeps each open promise in a dict and each venue figure in a number; what it cannot know
(which unit is whose) it need not: the rules are about sums.
"""

from __future__ import annotations

from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tradepool.errors import IllegalTransition, InsufficientTokens, Rejected
from tradepool.model.ledger import (
    Ledger,
    ReservationStatus,
    available,
    broken_rules,
    find_reservation,
    reservation_id,
)
from tradepool.model.ledger_change import LedgerChange
from tradepool.model.token_commands import (
    ExpireTokens,
    ReleaseTokens,
    ReserveTokens,
    SettleTokens,
    TokenCommand,
    UpdateTokens,
)
from tradepool.model.tokens import change

US_PER_S = 1_000_000

assets = st.sampled_from(["USDT", "BTC"])
keys = st.sampled_from([f"k{number}" for number in range(10)])
amounts = st.integers(1, 40).map(lambda units: Decimal(units) / 4)
shares = st.sampled_from([Decimal(0), Decimal("0.5"), Decimal(1)])


class TokenLedger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(user_id="u")
        self.now = 10 * US_PER_S
        self.sent: list[TokenCommand] = []
        self.free: dict[str, Decimal] = {}
        self.told_at: dict[str, int] = {}
        self.promised: dict[str, tuple[str, Decimal, int]] = {}
        self.promised_at: dict[str, int] = {}
        self.resolved: dict[str, str] = {}

    def apply(self, command: TokenCommand) -> LedgerChange:
        before = self.ledger
        result = change(before, command, now_us=self.now)
        assert result.ledger.version == before.version + (result.outcome == "applied")
        if result.outcome != "applied":
            assert result.ledger is before
        self.ledger = result.ledger
        self.sent.append(command)
        return result

    def command_id(self) -> str:
        return f"c{len(self.sent)}-{self.now}"

    @initialize()
    def the_account_has_something(self):
        self.the_venue_tells("USDT", 30, 0)

    @rule(seconds=st.integers(1, 5))
    def time_passes_and_some_promises_end(self, seconds):
        self.now += seconds * US_PER_S
        due = [key for key, (_, _, expires_at) in self.promised.items() if expires_at <= self.now]
        result = self.apply(ExpireTokens(command_id=self.command_id(), as_of=self.now, user_id="u"))
        assert result.outcome == ("applied" if due else "duplicate")
        self.resolve(due, "expired")

    @rule(seconds=st.integers(1, 5))
    def time_passes_unnoticed(self, seconds):
        self.now += seconds * US_PER_S

    @rule(asset=assets, free=st.integers(0, 30), late_s=st.sampled_from([0, 0, 0, 2]))
    def the_venue_tells(self, asset, free, late_s):
        as_of = self.now - late_s * US_PER_S
        known_at = self.ledger.assets[asset].as_of if asset in self.ledger.assets else None
        result = self.apply(
            UpdateTokens(command_id=self.command_id(), as_of=as_of, user_id="u", tokens={asset: free})
        )
        assert (result.outcome == "stale") == (known_at is not None and as_of < known_at)
        if result.outcome != "stale":
            self.free[asset] = Decimal(free)
            self.told_at[asset] = as_of

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def the_venue_has_less_than_is_promised(self, data):
        asset, held, _ = self.promised[data.draw(st.sampled_from(sorted(self.promised)))]
        self.the_venue_tells(asset, held / 2, 0)

    @rule(asset=assets, amount=amounts, key=keys, ttl_s=st.integers(1, 40))
    def a_bot_reserves(self, asset, amount, key, ttl_s):
        command = ReserveTokens(
            command_id=self.command_id(),
            as_of=self.now,
            user_id="u",
            asset=asset,
            amount=amount,
            key=key,
            ttl_s=ttl_s,
        )
        if key in self.promised or key in self.resolved:
            self.refused_or_unchanged(command)
            return
        due = [one for one, (_, _, expires_at) in self.promised.items() if expires_at <= self.now]
        still = sum(
            held for one, (coin, held, _) in self.promised.items() if coin == asset and one not in due
        )
        enough = self.free.get(asset, Decimal(0)) - still >= amount
        try:
            outcome = self.apply(command).outcome
        except InsufficientTokens:
            assert not enough
            return
        assert enough
        assert outcome == "applied"
        self.resolve(due, "expired")
        self.promised[key] = (asset, amount, self.now + ttl_s * US_PER_S)
        self.promised_at[key] = self.now

    @precondition(lambda self: self.promised)
    @rule(data=st.data(), share=shares, received=amounts, coin=assets)
    def a_bot_settles(self, data, share, received, coin):
        self.settle(data.draw(st.sampled_from(sorted(self.promised))), share, received, coin)

    @rule(key=keys, share=shares, received=amounts, coin=assets)
    def a_bot_settles_what_may_be_gone(self, key, share, received, coin):
        self.settle(key, share, received, coin)

    def settle(self, key, share, received, coin):
        asset, held, _ = self.promised.get(key, ("USDT", Decimal(1), 0))
        command = SettleTokens(
            command_id=self.command_id(),
            as_of=self.now,
            reservation_id=reservation_id("u", "default", key),
            spent=held * share,
            received={coin: received},
        )
        if key not in self.promised:
            self.refused_or_unchanged(command)
            return
        assert self.apply(command).outcome == "applied"
        self.free[asset] = max(self.free.get(asset, Decimal(0)) - held * share, Decimal(0))
        if self.told_at.get(coin, 0) <= self.promised_at[key]:
            self.free[coin] = self.free.get(coin, Decimal(0)) + received
        self.resolve([key], "settled")

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def a_bot_releases(self, data):
        self.release(data.draw(st.sampled_from(sorted(self.promised))))

    @rule(key=keys)
    def a_bot_releases_what_may_be_gone(self, key):
        self.release(key)

    def release(self, key):
        command = ReleaseTokens(
            command_id=self.command_id(), as_of=self.now, reservation_id=reservation_id("u", "default", key)
        )
        if key not in self.promised:
            self.refused_or_unchanged(command)
            return
        assert self.apply(command).outcome == "applied"
        self.resolve([key], "released")

    @rule(data=st.data())
    def a_command_is_delivered_again(self, data):
        if self.sent:
            self.refused_or_unchanged(data.draw(st.sampled_from(self.sent[-20:])), repeat=True)

    def refused_or_unchanged(self, command: TokenCommand, *, repeat: bool = False) -> None:
        try:
            result = change(self.ledger, command, now_us=self.now)
        except IllegalTransition:
            return
        except Rejected:
            assert not repeat
            return
        # A snapshot or an expiry that changed nothing the first time may find something to do now.
        if not isinstance(command, UpdateTokens | ExpireTokens):
            assert result.outcome in ("duplicate", "stale")
            assert result.ledger is self.ledger

    def resolve(self, keys: list[str], status: str) -> None:
        for key in keys:
            del self.promised[key]
            self.resolved[key] = status

    @invariant()
    def reserved_is_the_sum_of_the_promises_and_never_above_the_total(self):
        for asset, balance in self.ledger.assets.items():
            promised = sum(held for coin, held, _ in self.promised.values() if coin == asset)
            assert balance.reserved == promised
            assert 0 <= balance.reserved <= balance.total
            assert balance.free == self.free.get(asset, 0)
            assert balance.available == balance.total - balance.reserved
            assert balance.frozen == (promised > self.free.get(asset, Decimal(0)))

    @invariant()
    def nothing_is_available_that_the_venue_does_not_have(self):
        for asset, amount in available(self.ledger, now_us=self.now).items():
            promised = sum(
                held for coin, held, until in self.promised.values() if coin == asset and until > self.now
            )
            assert amount == self.free[asset] - promised

    @invariant()
    def each_reservation_is_resolved_once(self):
        assert self.ledger.reservations.keys() == self.promised.keys()
        assert self.ledger.resolved.keys() == self.resolved.keys()
        for key, status in self.resolved.items():
            past = find_reservation(self.ledger, key)
            assert past is not None
            assert past.status is ReservationStatus(status)

    @invariant()
    def the_audit_finds_frozen_assets_and_nothing_else(self):
        assert all(rule.endswith("frozen") for rule in broken_rules(self.ledger))


TokenLedger.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestTokenLedger = TokenLedger.TestCase
