"""Keys with a time limit, of a wrong type, or with a value that cannot be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from tradepool.audit.repair.fixes import Fix, mended, refusal
from tradepool.audit.repair.journaled import last_positions, newest_records
from tradepool.audit.repair.repaired_pool import RepairedPool
from tradepool.audit.repair.shard_state import ShardState
from tradepool.audit.report import Finding
from tradepool.audit.rules.key_rules import key_ttl, key_type, key_value
from tradepool.audit.rules.registry import Repair
from tradepool.errors import Corrupt, JournalUnavailable
from tradepool.files.lines import JournalLine
from tradepool.files.point import JournalPoint
from tradepool.files.reading import read_groups
from tradepool.store.arguments import Argument
from tradepool.store.changed_ids import CUT_CHARS, SEPARATOR
from tradepool.store.inspection import StoredKey
from tradepool.store.key_families import family_of, user_of
from tradepool.store.keys import BUCKETS, Keys
from tradepool.store.mending import Look, Write
from tradepool.store.progress import POSITION_FIELD
from tradepool.store.watermark import watermark_text

__all__ = ["key_fixes", "published_fixes"]

_NO_LIMIT_MS = -1
_WRONG_TYPE = "WRONGTYPE"
"""What the server answers whoever reads such a key."""
_OTHER_FIRST = "another key of its shard is of a wrong type, and comes first; then repair again"


def key_fixes(pool: RepairedPool, findings: Iterable[Finding]) -> Iterator[Fix]:
    """What to write about the keys that findings name, but for what is counted or summed up."""
    found = sorted({(finding.rule, finding.subject, finding.detail) for finding in findings})
    for name in sorted({subject for rule, subject, _ in found if rule == key_ttl.name}):
        yield from _without_limit(pool, name)
    for name in sorted({subject for rule, subject, _ in found if rule == key_type.name}):
        for key in pool.store.keys_named([name]):
            if key.found != key.expected:
                yield _of_type(pool, key)
    values = [(subject, detail) for rule, subject, detail in found if rule == key_value.name]
    for name in sorted({subject for subject, _ in values}):
        if family_of(name)[0] == "n":
            yield from _changed_ids(pool, name)
    if any(subject == Keys.meta for subject, _ in values):
        why = "the pool's folder may be another pool's; a person has to decide"
        yield refusal(Repair.COUNTERS, Keys.meta, why)
    fields = sorted({detail.partition(":")[0] for subject, detail in values if subject == Keys.journal})
    if fields:
        yield from published_fixes(pool, fields)


def _without_limit(pool: RepairedPool, name: str) -> Iterator[Fix]:
    (left_ms,) = pool.mender.ask([("PTTL", name)])
    if left_ms > _NO_LIMIT_MS:
        yield Fix(
            action=Repair.KEY,
            subject=name,
            detail=f"gone in {left_ms // 1000} s → no time limit",
            act=mended(pool, [], [Write("PERSIST", name, [])]),
            user_id=user_of(name),
        )


def _of_type(pool: RepairedPool, key: StoredKey) -> Fix:
    family, _ = family_of(key.name)
    if key.name in (Keys.meta, Keys.journal):
        why = "what it said of the pool is lost; empty the server and recover it"
        return refusal(Repair.JOURNAL, key.name, why)
    if family == "outbox":
        why = "commits may be lost that the journal does not have; a person has to decide"
        return refusal(Repair.JOURNAL, key.name, why)
    try:
        writes = _contents(pool, key)
    except (Corrupt, JournalUnavailable) as problem:
        why = _OTHER_FIRST if _WRONG_TYPE in str(problem) else str(problem)
        return refusal(Repair.JOURNAL, key.name, why, user_of(key.name))
    looks = [Look("TYPE", key.name, [], key.found.encode())]
    # A commit that compares fields of the hash is refused while it is of a wrong type, so it stands still.
    act: Callable[[], str | None] = mended(pool, looks, writes)
    if family == "digest":
        act = partial(_with_sums, pool, key.shard, act)
    return Fix(
        action=Repair.JOURNAL,
        subject=key.name,
        detail=f"a {key.found} → {_what_comes(key, writes)}",
        act=act,
        user_id=user_of(key.name),
    )


def _contents(pool: RepairedPool, key: StoredKey) -> list[Write]:
    """What to put in place of the key: all of it where a commit could miss it meanwhile."""
    family, rest = family_of(key.name)
    gone = Write("DEL", key.name, [])
    match family:
        case "r":
            return [gone, *_hash(key.name, _records(pool, key.shard, int(rest, 16)))]
        case "digest":
            position = last_positions(pool, [key.shard])[key.shard]
            return [gone, *_hash(key.name, [POSITION_FIELD, position])]
        case "n":
            return [Write("SET", key.name, [_beyond(pool)])]
        case "i" | "f":
            return [gone, *_hash(key.name, _claims(pool, key))]
    return [gone]


def _hash(name: str, pairs: list[Argument]) -> list[Write]:
    return [Write("HSET", name, pairs)] if pairs else []


def _records(pool: RepairedPool, shard: int, bucket: int) -> list[Argument]:
    """The bucket as the journal has it: nothing was committed to it while it was of a wrong type."""

    def is_wanted(line: JournalLine) -> bool:
        return line.shard == shard and pool.keys.bucket_of(line.record_id) == bucket

    newest = newest_records(pool, [shard], is_wanted)
    pairs: list[Argument] = []
    for record_id, journaled in sorted(newest.items()):
        pairs += [record_id, journaled.line.value]
    return pairs


def _claims(pool: RepairedPool, key: StoredKey) -> list[Argument]:
    state = ShardState(pool, key.shard)
    state.read()
    if state.unreadable:
        raise Corrupt("a record of the shard cannot be read")
    pairs: list[Argument] = []
    for field, trade_ids in sorted(state.claims.get(key.name, {}).items()):
        pairs += [field, trade_ids[0]]
    return pairs


def _with_sums(pool: RepairedPool, shard: int, act: Callable[[], str | None]) -> str | None:
    why = act()
    if why is None and pool.mender.recount(shard, range(BUCKETS)) is None:
        return "a record has no digest"
    return why


def _what_comes(key: StoredKey, writes: list[Write]) -> str:
    family, _ = family_of(key.name)
    count = sum(len(write.arguments) // 2 for write in writes if write.command == "HSET")
    match family:
        case "r":
            return f"{count} records of the journal"
        case "digest":
            return "sums counted again"
        case "i" | "f":
            return f"{count} claims of the user's trades"
    return f"a {key.expected}, from the records"


def _changed_ids(pool: RepairedPool, name: str) -> Iterator[Fix]:
    (text,) = pool.mender.ask([("GET", name)])
    if text is None:
        return
    yield Fix(
        action=Repair.COUNTERS,
        subject=name,
        detail=f"{len(text)} bytes → a new beginning: what was worked out of the user is void",
        act=mended(pool, [Look("GET", name, [], bytes(text))], [Write("SET", name, [_beyond(pool)])]),
        user_id=user_of(name),
    )


def _beyond(pool: RepairedPool) -> str:
    """A beginning behind every revision that there was: a user's ids come to fewer bytes than time has µs."""
    return f"{pool.now_us():0{CUT_CHARS}d}{SEPARATOR}"


def published_fixes(pool: RepairedPool, fields: Sequence[str]) -> Iterator[Fix]:
    """What the journal's writer has published, as its files have it; what it publishes meanwhile stands."""
    if not fields:
        return
    ask = [("HGET", Keys.journal, field) for field in fields]
    before = pool.mender.ask(ask)
    try:
        point = _journal_point(pool)
    except (Corrupt, JournalUnavailable) as problem:
        yield refusal(Repair.COUNTERS, Keys.journal, str(problem))
        return
    shards = {Keys.journal_field(shard): shard for shard in pool.keys.shards}
    for field, first, stored in zip(fields, before, pool.mender.ask(ask), strict=True):
        shard = shards.get(field)
        if shard is None or first != stored:
            continue
        digest = point.digest(shard)
        text = watermark_text(point.position(shard), digest.text, digest.count)
        was = None if stored is None else bytes(stored)
        if was != text.encode():
            shown = "nothing" if was is None else was.decode(errors="backslashreplace")
            yield Fix(
                action=Repair.COUNTERS,
                subject=Keys.journal,
                detail=f"{field}: {shown} → {text}",
                act=mended(
                    pool,
                    [Look("HGET", Keys.journal, [field], was)],
                    [Write("HSET", Keys.journal, [field, text])],
                ),
            )


def _journal_point(pool: RepairedPool) -> JournalPoint:
    """What the journal's files hold, once that is on disk: its writer may be about to sync the last of it."""
    point = JournalPoint(offset=0, crc=0)
    for group in read_groups(pool.journal):
        point = point.after(group.end, group.commit, group.entries())
    try:
        with pool.journal.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as problem:
        raise JournalUnavailable(f"{pool.journal}: {problem.strerror}") from problem
    return point
