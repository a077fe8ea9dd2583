"""Every target of the design, measured in one go: a markdown table of what is reached and what is not.

    python bench/targets.py [--quick] [--only NAME ...] [--write]

Each measurement runs as a process of its own, one after the other, so that none inherits memory or threads of
another; ratios are of rates measured within the same process and server. A measurement that fails has a row
that says so. `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measurement import Numbers, rounded

__all__ = ["TARGETS", "Target", "table"]

_HERE = Path(__file__).parent
_DOCUMENT = _HERE.parent / "docs" / "performance.md"
_BEGIN, _END = "<!-- targets: written by `python bench/targets.py --write` -->\n", "\n<!-- end of targets -->"
_PROGRAM_TIMEOUT_S = 3600


class Target(NamedTuple):
    """One row: which number of which program should be at least, or at most, how much."""

    what: str
    program: str
    number: str
    bound: float
    absolute: tuple[str, ...] = ()
    """Further numbers of the same program that are worth a look."""
    is_ceiling: bool = False

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≤' if self.is_ceiling else '≥'} {rounded(self.bound)}"

    def is_reached(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
        return value <= self.bound if self.is_ceiling else value >= self.bound


TARGETS = (
    Target(
        "durable adds, 3 producers ÷ SET", "durable_adds", "adds_ratio", 0.40, ("adds_per_s", "sets_per_s")
    ),
    Target("updates, 3 producers ÷ SET", "updates", "updates_ratio", 0.35, ("updates_per_s", "sets_per_s")),
    Target("fills, 3 producers ÷ SET", "updates", "fills_ratio", 0.35, ("fills_per_s",)),
    Target("recovery ÷ SET", "recovery", "recovery_ratio", 0.7, ("recovered_per_s", "sets_per_s")),
    Target("journal drain with fsync, lines/s", "journal_drain", "drained_per_s", 200_000),
    Target("scan and decode ÷ decode", "scan_decode", "scan_ratio", 0.9, ("scanned_per_s", "decoded_per_s")),
    Target(
        "audit, digest level, server's ms",
        "audit_levels",
        "digest_level_server_ms",
        10,
        ("trades", "digest_level_p50_ms"),
        is_ceiling=True,
    ),
    Target(
        "audit, full compare ÷ rehash",
        "audit_levels",
        "full_compare_to_rehash_ratio",
        15,
        ("full_compare_record_us", "rehash_record_us"),
    ),
    Target(
        "audit, full compare ÷ deep",
        "audit_levels",
        "full_compare_to_deep_ratio",
        15,
        ("full_compare_record_us", "decode_compare_record_us", "deep_record_us"),
    ),
    Target(
        "memory ÷ JSON as stored",
        "memory",
        "memory_ratio",
        1.25,
        ("trades", "memory_bytes", "raw_json_bytes"),
        is_ceiling=True,
    ),
    Target(
        "memory ÷ JSON as sent", "memory", "memory_to_sent_ratio", 1.25, ("sent_json_bytes",), is_ceiling=True
    ),
    *(
        Target(
            f"ack p99, {changes} a call, journal {name}, ms",
            "latency",
            f"{name}_{changes}_p99_ms",
            bound,
            (f"{name}_{changes}_p50_ms", "fdatasync_p50_ms"),
            is_ceiling=True,
        )
        for name in ("embedded", "separate")
        for changes, bound in ((1, 2), (100, 8))
    ),
    Target(
        "a user's 50 newest trades, p99, ms",
        "queries",
        "user_50_p99_ms",
        1,
        ("user_50_p50_ms", "ping_p50_ms", "decode_50_p50_ms"),
        is_ceiling=True,
    ),
    Target(
        "a tick: prices to readable marks, ms",
        "tick",
        "tick_ms",
        25,
        ("rows", "users", "mark_ms", "encode_ms", "write_ms"),
        is_ceiling=True,
    ),
    Target(
        "summary, counters only, p99, ms",
        "summary",
        "counters_p99_ms",
        1,
        ("counters_p50_ms", "ping_p50_ms"),
        is_ceiling=True,
    ),
    Target(
        "summary of 10,000 trades, one changed, p99, ms",
        "summary",
        "changed_p99_ms",
        20,
        ("changed_p50_ms", "unchanged_p50_ms", "cold_p50_ms"),
        is_ceiling=True,
    ),
    *(
        Target(
            f"one trade through the fleet, {load.replace('_', ' ')}, {percentile}, ms",
            "fleet_latency",
            f"{load}_{percentile}_ms",
            bound,
            ("direct_p50_ms", "fdatasync_p50_ms", "capacity_per_s"),
            is_ceiling=True,
        )
        for load in ("idle", "half_load")
        for percentile, bound in (("p50", 10), ("p99", 40))
    ),
    *(
        Target(
            f"enqueued to journaled, {kind.replace('_', ' ')} ÷ best peer",
            "peers",
            f"tradepool_{kind}_to_best_peer_ratio",
            bound,
            (f"tradepool_{kind}_per_s", "celery_tuned_per_s", "dramatiq_tuned_per_s", "huey_tuned_per_s"),
        )
        for kind, bound in (("chunks", 20), ("a_message_per_trade", 2))
    ),
    Target(
        "a worker's processor time a message, Celery's transport ÷ atomic takes",
        "take",
        "threads_small_celery_to_atomic_cpu_ratio",
        3,
        (
            "celery_threads_small_worker_us",
            "atomic_threads_small_worker_us",
            "threads_small_atomic_to_celery_ratio",
        ),
    ),
    Target("adds ÷ the old way, Redis only", "seed_equivalent", "factor_ratio", 40, ("old_per_s",)),
    Target(
        "adds ÷ the old way with files, 10,000 trades",
        "seed_equivalent",
        "factor_with_files_ratio",
        10_000,
        ("old_with_files_per_s",),
    ),
)


def table(targets: Sequence[Target], results: dict[str, Numbers]) -> str:
    """The markdown table; `results` are the numbers of each program that came to an end."""
    lines = ["| what | target | measured | absolute | |", "|---|---|---|---|---|"]
    lines += [_row(target, results.get(target.program, {})) for target in targets]
    return "\n".join(lines)


def _row(target: Target, numbers: Numbers) -> str:
    value = numbers.get(target.number)
    if value is None:
        return f"| {target.what} | {target.wanted} | — | `{target.program}` gave no number | failed |"
    absolute = ", ".join(f"{name} {rounded(numbers[name])}" for name in target.absolute if name in numbers)
    verdict = "reached" if target.is_reached(value) else "missed"
    return f"| {target.what} | {target.wanted} | {rounded(value)} | {absolute} | {verdict} |"


def _measured(program: str, *, quick: bool) -> Numbers:
    """The numbers of one program; none when it fails, after its error has been shown."""
    command = [sys.executable, str(_HERE / f"{program}.py"), "--json", *(["--quick"] if quick else [])]
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent)}
    ended = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=_PROGRAM_TIMEOUT_S, check=False
    )
    if ended.returncode:
        return {}
    numbers: Numbers = json.loads(ended.stdout)
    return numbers


def main() -> None:
    """Run the programs one after the other, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer trades and rounds")
    parser.add_argument("--only", nargs="+", help="programs to run", metavar="NAME")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    targets = [target for target in TARGETS if not given.only or target.program in given.only]
    results: dict[str, Numbers] = {}
    for program in dict.fromkeys(target.program for target in targets):
        print(f"{program} …", file=sys.stderr, flush=True)
        results[program] = _measured(program, quick=given.quick)
        print(json.dumps(results[program]), file=sys.stderr, flush=True)
    print(table(targets, results))
    if given.write:
        _write(table(targets, results))


def _write(text: str) -> None:
    before, _, rest = _DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    _DOCUMENT.write_text(before + _BEGIN + text + _END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
