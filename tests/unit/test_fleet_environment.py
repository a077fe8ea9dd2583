"""What the fleet's processes are told by their environment."""

from __future__ import annotations

import pytest

from tradepool.fleet.programs import environment
from tradepool.settings import load_settings


def test_a_broker_of_the_surroundings_is_not_told_to_a_fleet_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRADEPOOL_BROKER_URL", "redis://production:6379/0")
    settings = load_settings(redis_url="redis://127.0.0.1:1/0", broker_url=None)

    assert "TRADEPOOL_BROKER_URL" not in environment(settings)


def test_a_password_of_the_surroundings_that_the_settings_have_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRADEPOOL_REDIS_PASSWORD", "secret")

    assert environment(load_settings())["TRADEPOOL_REDIS_PASSWORD"] == "secret"
