"""Telling whoever is on call: a POST to a webhook, whose URL is a secret and is named nowhere.

In a fleet the task `wire.PAGE_AUDIT` does that, and again while it fails. A pool without one does it once,
on the spot.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from tradepool import wire
from tradepool.audit.reports.kept import KeptReport
from tradepool.broker import ChangeSender
from tradepool.errors import Misconfigured, Undelivered
from tradepool.printable import printable
from tradepool.settings import Settings, secret_of

__all__ = ["FleetPager", "Pager", "message", "post", "webhook_url"]

TIMEOUT_S = 10.0
FINDINGS_TOLD_MAX = 10
"""Findings that a page names; the report has all."""
_DETAIL_CHARS_MAX = 300


class Pager(Protocol):
    """Sees to it that somebody is told of an audit."""

    def send(self, run_id: str) -> None:
        """Tell of this audit, at once or soon. Raises: Unavailable, Misconfigured."""


class FleetPager:
    """Has a worker of the queue `audit` tell; its message names the audit and nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, run_id: str) -> None:
        """Send the task. Raises: StoreUnavailable when the broker is away, Misconfigured."""
        with ChangeSender(self._settings) as sender:
            sender.call(wire.QUEUE_AUDIT, wire.PAGE_AUDIT, [run_id])


def webhook_url(settings: Settings) -> SecretStr | None:
    """Where pages go; None: nowhere. Raises: Misconfigured, which does not name it."""
    name = "TRADEPOOL_AUDIT_WEBHOOK_URL"
    url = secret_of(name, settings.audit_webhook_url, settings.audit_webhook_url_file)
    if url is not None and not _is_address(url.get_secret_value()):
        raise Misconfigured(f"{name}: no address of a webhook; give http(s)://host/path, without a password")
    return url


def message(report: KeptReport, *, pool: str, file: str) -> dict[str, Any]:
    """What a page says of the new critical findings of `report`: `text` for people, fields for programs.

    `pool` is the server and `file` the report's file in words. In `text` the three characters that chat
    services read as markup are escaped, so that no user's data can call a channel or hide a link.
    """
    critical = report.severities.get("critical", 0)
    told = report.news[:FINDINGS_TOLD_MAX]
    lines = [
        f"tradepool {pool}: {report.new_critical} new critical findings, {critical} in all",
        f"{report.level} audit of {report.started}",
        *(printable(f"• {row.rule}: {row.subject}: {row.detail}")[:_DETAIL_CHARS_MAX] for row in told),
    ]
    if report.new_critical > len(told):
        lines.append(f"… and {report.new_critical - len(told)} more")
    lines.append(f"All of it: {file}, or `tradepool audit-report`")
    return {
        "text": _escaped("\n".join(lines)),
        "pool": pool,
        "run_id": report.run_id,
        "level": report.level,
        "started_at": report.started_at,
        "started": report.started,
        "new_critical": report.new_critical,
        "severities": report.severities,
        "counts": report.counts,
        "findings": msgspec.to_builtins(told),
        "report": file,
    }


def post(url: SecretStr, content: dict[str, Any]) -> None:
    """Send `content` as JSON, once; on return the other side has taken it.

    It is not led on to another address: a page would end where nobody reads it.

    Raises: Undelivered, which names neither the URL nor anything made of it.
    """
    problem = _problem(url, msgspec.json.encode(content))
    # Outside of every `except`: the errors of the libraries hold the URL, and tracebacks would show them.
    if problem:
        raise Undelivered(f"the webhook of TRADEPOOL_AUDIT_WEBHOOK_URL did not take a page: {problem}")


def _problem(url: SecretStr, body: bytes) -> str:
    opener = urllib.request.build_opener(_NotLedOn)
    try:
        request = urllib.request.Request(  # noqa: S310 - `webhook_url` lets http(s) pass and nothing else
            url.get_secret_value(),
            data=body,
            headers={"Content-Type": "application/json", "User-Agent": "tradepool"},
            method="POST",
        )
        with opener.open(request, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as refusal:
        with refusal:
            return f"HTTP {refusal.code}"
    except (OSError, HTTPException, ValueError) as problem:
        return _named(problem)


class _NotLedOn(urllib.request.HTTPRedirectHandler):
    """Leaves an answer that names another address what it is: a refusal."""

    def redirect_request(self, *_: object) -> None:
        """No further request."""


def _named(problem: Exception) -> str:
    """What went wrong in the system's words; a library's own may hold the URL."""
    reason: object = getattr(problem, "reason", problem)
    if isinstance(reason, TimeoutError):
        return f"no answer in {TIMEOUT_S:g} s"
    name = type(reason).__name__
    if isinstance(reason, OSError) and type(reason).__module__ == "builtins" and reason.strerror:
        return f"{name}: {reason.strerror}"
    return name


def _is_address(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and parts.port != 0
        )
    except ValueError:
        return False


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
