"""How close marks on a CUDA device come to the bandwidth of its memory, and what a tick takes.

    make gpu-bench ARGS="[ROWS ...]"

One process, one run. For each size and each kind of rows: the kernels alone, by the device's own clock, in
rows a second and as a share of what a copy within the device's memory moves, measured in the same rounds over
as many bytes; the bytes are 22 a row and the sums by group, and nothing else counts as useful. Then a whole
tick as a worker sees it, prices to sums: table up, kernels, sums down, against the numpy backend on the same
book. Medians over rounds that alternate. `narrow` are rows of up to 10⁴, `wide` of up to 2·10⁹ of quote,
`single` narrow rows of one symbol. Device, driver and date are printed with the figures, and kept in a file
with them. Both arithmetics, and numpy where it is measured, have to give the same sums by symbol and as many
winners, or the program fails. Without a device nothing is measured, and that is said.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.gpu.checks import Machine
from tests.gpu.devices import NoDevice, real_machine
from tests.gpu.results import Results
from tests.gpu.synthetic import SyntheticBook
from tradepool.pnl.cpu.numpy_backend import NumpyBackend
from tradepool.pnl.cuda.backend import CudaBackend
from tradepool.pnl.cuda.device import Arithmetic, CudaDevice
from tradepool.pnl.protocol import Backend

ROWS = (10**5, 10**6, 10**7, 10**8)
ROUNDS = 15
NUMPY_ROWS_MAX = 10**7
ROW_BYTES = 22
GROUP_BYTES = 28
"""Three sums of int64 and a count of uint32, set to zero and written once."""
KINDS: dict[str, dict[str, Any]] = {
    "narrow": {"notional_max": 1e4},
    "wide": {"notional_max": 2e9},
    "single": {"notional_max": 1e4, "symbols": 1},
}

Figures = tuple[list[int], list[int], int]
"""Value and unrealised PnL by symbol and side, and how many rows are winners."""


class Replay:
    """The launches of a device, kept to be made again without the work around them."""

    def __init__(self, device: CudaDevice) -> None:
        self._launch = device.launch
        self._made: list[tuple[Any, ...]] = []
        device.launch = self._note  # type: ignore[assignment, method-assign]

    def forget(self) -> None:
        """Begin anew."""
        self._made.clear()

    def again(self) -> None:
        """Make the same launches."""
        for made in self._made:
            self._launch(*made)

    def _note(self, *launch: Any) -> None:
        self._made.append(launch)
        self._launch(*launch)


class Stopwatch:
    """Times work on the device by its own clock."""

    def __init__(self, cupy: Any, device: CudaDevice) -> None:
        self._cupy = cupy
        self._device = device

    def seconds(self, work: Any) -> float:
        """What `work` takes there, without what the host does for it."""
        with self._device.active():
            begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            begin.record()
            work()
            end.record()
            end.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1000


def tick(backend: Backend, book: SyntheticBook, number: int) -> float:
    """Seconds from prices to sums."""
    started = time.perf_counter()
    backend.mark(book.tables(number), groups=book.groups, rows=False)
    backend.download()
    return time.perf_counter() - started


def measure(machine: Machine, rows: int, say: Callable[[str], None], rounds: int = ROUNDS) -> None:
    """Say the figures of books of `rows`. Raises: AssertionError where backends differ in their sums."""
    for kind, made in KINDS.items():
        book = SyntheticBook.of(rows, seed=rows, **made)
        numpy = NumpyBackend() if rows <= NUMPY_ROWS_MAX else None
        if numpy is not None:
            numpy.upload(book.columns)
        seen = []
        for arithmetic in Arithmetic:
            times, figures = _times(machine, arithmetic, book, numpy, rounds)
            say(_line(f"{rows:>11,} rows, {kind:<6} {arithmetic:<5}", times, book))
            seen.append(figures)
        if numpy is not None:
            seen.append(_figures(numpy, book))
        assert all(figures == seen[0] for figures in seen), f"the sums of {rows:,} rows, {kind}, differ"


def _figures(backend: Backend, book: SyntheticBook) -> Figures:
    """Figures to which each row adds, and which stay few where groups are many."""
    backend.mark(book.tables(0), groups=book.groups, rows=False)
    sums = backend.download()
    return sums.code_value.tolist(), sums.code_unrealised.tolist(), int(sums.winners.sum())


def _times(
    machine: Machine, arithmetic: Arithmetic, book: SyntheticBook, numpy: Backend | None, rounds: int
) -> tuple[dict[str, list[float]], Figures]:
    device = machine.device(arithmetic)
    backend, watch, replay = CudaBackend(device), Stopwatch(machine.cupy, device), Replay(device)
    backend.upload(book.columns)
    size = max(1, (ROW_BYTES * book.columns.size + GROUP_BYTES * book.groups) // 16)
    with device.active():
        source, target = device.zeros(size, "int64"), device.zeros(size, "int64")

    def copy() -> None:
        target.data.copy_from_device_async(source.data, source.nbytes)

    times = defaultdict(list)
    for number in range(rounds + 1):
        replay.forget()
        seconds = {"tick": tick(backend, book, number)}
        seconds["kernels"] = watch.seconds(replay.again)
        seconds["copy"] = watch.seconds(copy)
        if numpy is not None:
            seconds["numpy"] = tick(numpy, book, number)
        # The first round makes buffers and loads kernels.
        for name, value in seconds.items() if number else ():
            times[name].append(value)
    return times, _figures(backend, book)


def _line(label: str, times: dict[str, list[float]], book: SyntheticBook) -> str:
    size, useful = book.columns.size, ROW_BYTES * book.columns.size + GROUP_BYTES * book.groups
    copied = useful // 16 * 16
    shares = [
        (useful / kernels) / (copied / copy)
        for kernels, copy in zip(times["kernels"], times["copy"], strict=True)
    ]
    kernels, copy, whole = (statistics.median(times[name]) for name in ("kernels", "copy", "tick"))
    line = (
        f"{label}: kernels {size / kernels / 1e9:7.2f} G rows/s, {useful / kernels / 1e9:7.1f} GB/s, "
        f"{statistics.median(shares):5.2f} of a copy's {copied / copy / 1e9:.0f} GB/s; "
        f"tick {whole * 1e3:8.3f} ms"
    )
    if "numpy" in times:
        ratios = [other / own for other, own in zip(times["numpy"], times["tick"], strict=True)]
        line += f", {statistics.median(ratios):.1f}x numpy's {statistics.median(times['numpy']) * 1e3:.2f} ms"
    return line


def main(sizes: list[int]) -> None:
    """Measure each of `sizes` on this machine's device."""
    try:
        machine, described = real_machine()
    except NoDevice as problem:
        print(f"no CUDA device: skipped, nothing was measured ({problem})")
        return
    results = Results(f"marks, cupy {machine.cupy.__version__}, {ROUNDS} rounds", described)
    for rows in sizes:
        measure(machine, rows, results.line)


if __name__ == "__main__":
    main([int(given) for given in sys.argv[1:]] or list(ROWS))
