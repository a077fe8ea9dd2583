"""redis-py's errors as ours: the one place where they are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import redis
from redis.exceptions import (
    AskError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)

from tradepool.errors import Corrupt, Fenced, Misconfigured, StoreUnavailable, TradePoolError

__all__ = ["STORE", "ServerName", "causes", "of_redis", "text_of", "texts_of", "translated"]


class ServerName(NamedTuple):
    """What errors call a server, and the setting to look at."""

    name: str
    variable: str


STORE = ServerName("the server", "TRADEPOOL_REDIS_URL")


_REFUSED = (redis.AuthenticationError, AuthorizationError, NoPermissionError)
_AWAY = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, TryAgainError, AskError)
_NOT_NOW = re.compile(r"(^|caused error: )(MISCONF|NOREPLICAS|BUSY) ")
"""A disk that is full under the append-only file; too few replicas; a script that runs too long."""
_WITH_ARGUMENTS = re.compile(r"Command # \d+ \((\S+(?: \S+)?).*?\) of pipeline caused error: ", re.DOTALL)
"""How redis-py tells which command of several failed; behind its key stands what it wanted to write."""
_WRONG_TYPE = re.compile(r"(^|caused error: )WRONGTYPE ")
_NO_CLUSTER = re.compile(r"cannot be connected|not covered|could not agree|No targets were found")
"""What redis-py says of a cluster whose nodes are away or do not agree; anything else is our mistake."""
_NOT_A_CLUSTER = re.compile(r"cluster support disabled|Cluster mode is not enabled")
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_BETWEEN, _BETWEEN_TEXT = b"\0", "\0"
"""Stands in no name of ours."""
_HUNG_UP = "EOF occurred in violation of protocol"
"""What is left of a TLS server's refusal when it closes the connection behind it."""
_NO_CERTIFICATE = re.compile("(?i)alert[ _]certificate[ _]required")
_NO_HANDSHAKE = re.compile("handshake operation timed out|WRONG_VERSION_NUMBER")
"""A port that does not speak TLS: servers wait for the rest of what they take for a command."""


@contextmanager
def translated(server: ServerName = STORE) -> Iterator[None]:
    """Run calls of redis-py to `server`; what they raise comes out as errors of tradepool.

    Raises: StoreUnavailable (unreachable, loading, out of memory, read-only), Fenced, Misconfigured
    (wrong password, rights or certificate), Corrupt (a key of ours holds another type).
    """
    try:
        yield
    except (redis.RedisError, RedisClusterException) as problem:
        ours = of_redis(problem, server)
        if ours is None:
            raise
        raise ours from problem


def text_of(value: bytes | str) -> str:
    """A server's answer as text, whether or not the client decodes its answers.

    Bytes that are no text are shown as such: the name of nothing that there is.
    """
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def texts_of(values: Sequence[bytes | str]) -> list[str]:
    """`text_of` each of them; thousands at once take a fraction of the time."""
    try:
        texts = _BETWEEN.join(values).decode(errors="backslashreplace").split(_BETWEEN_TEXT)  # type: ignore[arg-type]
    except TypeError:
        return [text_of(value) for value in values]
    # Somebody may have written a name with the separator in it.
    return texts if len(texts) == len(values) else [text_of(value) for value in values]


def of_redis(problem: BaseException, server: ServerName = STORE) -> TradePoolError | None:
    """What an error of redis-py means; None for what must be a mistake of ours."""
    return _of_cluster(problem) if isinstance(problem, RedisClusterException) else _ours(problem, server)


def causes(problem: BaseException) -> Iterator[BaseException]:
    """`problem`, what it was raised for, and so on."""
    cause: BaseException | None = problem
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _ours(problem: BaseException, server: ServerName) -> TradePoolError | None:
    """None for what must be a mistake of ours."""
    if isinstance(problem, NoScriptError):
        return Fenced("the server has restarted and recovery has not opened it yet")
    if _is_misconfigured(problem):
        return _misconfigured(problem, server)
    if _WRONG_TYPE.search(str(problem)):
        return Corrupt(f"a key holds what it should not: {_words_of(problem)}")
    why = _why_not_now(problem, server)
    return None if why is None else StoreUnavailable(why)


def _why_not_now(problem: BaseException, server: ServerName) -> str | None:
    """In what way the server is away for a while, if that is the problem."""
    if isinstance(problem, _AWAY):
        return f"{server.name} cannot be reached: {_words_of(problem).rstrip('.')}{_hint(problem, server)}"
    if isinstance(problem, OutOfMemoryError):
        return f"{server.name} is out of memory; raise its maxmemory"
    if isinstance(problem, ReadOnlyError):
        return f"{server.name} is a read-only replica; a failover is under way"
    is_for_now = _NOT_NOW.search(str(problem))
    return f"{server.name} does not write now: {_words_of(problem)}" if is_for_now else None


def _hint(problem: BaseException, server: ServerName) -> str:
    """What may help to reach the server; of the store's, the command line knows better."""
    if _HUNG_UP in str(problem):
        return "; does it ask for TRADEPOOL_REDIS_CERT_FILE?"
    if any(_NO_HANDSHAKE.search(str(cause)) for cause in causes(problem)):
        return f"; does it speak TLS? If not, write {server.variable} without the second s of its scheme"
    return "" if server == STORE else f"; start the server {server.variable} names"


def _is_misconfigured(problem: BaseException) -> bool:
    words = str(problem)
    return isinstance(problem, _REFUSED) or _UNTRUSTED in words or bool(_NO_CERTIFICATE.search(words))


def _misconfigured(problem: BaseException, server: ServerName = STORE) -> Misconfigured:
    if _NO_CERTIFICATE.search(str(problem)):
        return Misconfigured(
            f"{server.name} asks for a certificate; "
            "set TRADEPOOL_REDIS_CERT_FILE and TRADEPOOL_REDIS_KEY_FILE"
        )
    if _UNTRUSTED in str(problem):
        return Misconfigured(
            f"{server.name}'s certificate is signed by nobody we trust, or for another host; "
            "set TRADEPOOL_REDIS_CA_FILE to its authority"
        )
    if isinstance(problem, NoPermissionError):
        return Misconfigured(
            f"{server.name} denies its user a right: {_words_of(problem)}; "
            "start this program with the role that docs/operations.md names for it, or have the server's "
            "administrator load that release's users (ops/redis/make-users)"
        )
    return Misconfigured(
        f"{server.name} refuses us: {str(problem).rstrip('.')}; "
        f"check user and password, in {server.variable} or beside it"
    )


def _words_of(problem: BaseException) -> str:
    """What the server said, and to which command and key; the rest of a command may have a trade in it."""
    return _WITH_ARGUMENTS.sub(r"\1: ", str(problem))


def _of_cluster(problem: RedisClusterException) -> TradePoolError | None:
    """What is behind an error of the cluster's client, which wraps the answer of the last node it tried."""
    for cause in causes(problem):
        if _is_misconfigured(cause):
            return _misconfigured(cause)
    if _NOT_A_CLUSTER.search(str(problem)):
        return Misconfigured("the server is no node of a cluster; write redis:// in TRADEPOOL_REDIS_URL")
    if _NO_CLUSTER.search(str(problem)):
        return StoreUnavailable(f"the cluster cannot be reached: {problem}")
    return None
