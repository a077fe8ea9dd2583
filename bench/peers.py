"""This pool against task queues that write one record per task: items a second from enqueueing to disk.

    python bench/peers.py [--quick] [--json] [--rounds N]

A trade is a bot's JSON of about 413 bytes. A peer's task writes these bytes as a line of a file and returns
once they are synced (`peer_tasks/records.py`); it does nothing else. Ours checks, decides, stores, indexes
and journals it, about 820 bytes, each once. The clock runs in a producer process of its own from the first
enqueue until the last record is on disk; ours until the client knows so.

Each contender has the same number of worker processes, ours with its journal's among them, and of threads
where its processes have threads; a server of its own, of the same program and settings; and is alone at work.
The order moves on by one each round. Peers appear twice: as their first steps say with a sync per record, and
tuned, with syncs shared by the tasks that a process runs at a time, where it runs several. What each
contender promises is printed beside it, for some promise less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measurement import Numbers, rounded
from bench.peer_tasks.contenders import CONTENDERS, PROCESSES, THREADS, Contender
from bench.pool_load import pin_append_only_file
from tradepool.server.embedded import EmbeddedServer

__all__ = ["measure"]

ROUNDS = 3
QUICK_DIVISOR = 4
WARM_UP = 20
_HOME = Path(__file__).parents[1]
_STOP_S = 30.0

Rates = dict[str, list[float]]


class Producer:
    """The process that enqueues for one contender."""

    def __init__(self, contender: Contender, variables: dict[str, str]) -> None:
        command = [sys.executable, "-m", "bench.peer_tasks.produce", contender.app]
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._hear()

    def seconds(self, first: int, count: int) -> float:
        """How long `count` trades from number `first` take. Raises: ChildProcessError when it fails."""
        self._tell(f"{first} {count}")
        self._hear()
        self._tell("go")
        return float(self._hear())

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise ChildProcessError("a producer ended; its own error stands above")
        return line.strip()


def measure(*, rounds: int, divisor: int, names: Sequence[str]) -> Rates:
    """Items a second of each contender, round by round."""
    contenders = [contender for contender in CONTENDERS if not names or contender.name in names]
    rates: Rates = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
            rate = _rate(contender, max(1, contender.items // divisor))
            print(f"{contender.name}: {rounded(rate)} /s", file=sys.stderr, flush=True)
            rates[contender.name].append(rate)
    return rates


def _rate(contender: Contender, count: int) -> float:
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        server = resources.enter_context(EmbeddedServer(folder, port=0))
        with server.client() as client:
            pin_append_only_file(client)
        variables = _variables(contender, server.url, folder)
        for arguments in contender.workers:
            resources.enter_context(_running(arguments, variables, folder / "workers.log"))
        producer = Producer(contender, variables)
        resources.enter_context(_ended(producer.process))
        try:
            # Until the workers answer: what they need to come up is nobody's rate.
            producer.seconds(0, WARM_UP)
            return count / producer.seconds(WARM_UP, count)
        except ChildProcessError:
            print((folder / "workers.log").read_text()[-4000:], file=sys.stderr)
            raise


def _variables(contender: Contender, url: str, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(_HOME),
        "PEERS_URL": url,
        "RQ_REDIS_URL": url,
        "TRADEPOOL_REDIS_URL": url,
        "TRADEPOOL_DATA_DIR": str(folder),
        **({} if contender.is_ours else {"PEERS_FILE": str(folder / "records.jsonl")}),
        **contender.variables,
    }


@contextmanager
def _running(arguments: Sequence[str], variables: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=variables, cwd=_HOME, stdout=out, stderr=out
        )
    with _ended(process):
        yield


@contextmanager
def _ended(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Iterator[None]:
    """The process, ended with the block: asked, then killed."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def numbers_of(rates: Rates) -> Numbers:
    """Medians, and ours to the best peer: medians over rounds, each of one round."""
    numbers = {f"{_key(name)}_per_s": statistics.median(values) for name, values in rates.items()}
    ours = [contender.name for contender in CONTENDERS if contender.is_ours and contender.name in rates]
    peers = [name for name in rates if name not in ours]
    for name in ours if peers else ():
        best = [max(rates[peer][number] for peer in peers) for number in range(len(rates[name]))]
        numbers[f"{_key(name)}_to_best_peer_ratio"] = statistics.median(
            rate / other for rate, other in zip(rates[name], best, strict=True)
        )
    return numbers


def _key(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def table(rates: Rates) -> str:
    """A markdown table; the last column says what an acknowledged item is worth."""
    lines = [
        "| contender | items/s (rounds) | acknowledged | kill −9 of a worker |",
        "|---|---:|---|---|",
    ]
    for contender in CONTENDERS:
        if values := rates.get(contender.name):
            spread = (
                f"{rounded(statistics.median(values))} ({rounded(min(values))} to {rounded(max(values))})"
            )
            lines.append(
                f"| {contender.name} | {spread} | {contender.acknowledged} | {contender.when_killed} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the items, one round")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", default=(), help="contenders by name", metavar="NAME")
    given = parser.parse_args()
    started = time.monotonic()
    rates = measure(
        rounds=given.rounds or (1 if given.quick else ROUNDS),
        divisor=QUICK_DIVISOR if given.quick else 1,
        names=given.only,
    )
    numbers = numbers_of(rates)
    if given.json:
        print(json.dumps(numbers))
        return
    print(f"{PROCESSES} worker processes each, {THREADS} threads in each where it has threads")
    print(table(rates))
    for name, value in numbers.items():
        if name.endswith("ratio"):
            print(f"{name}  {rounded(value)}")
    print(f"took {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
