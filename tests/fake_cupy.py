"""As much of CuPy as the CUDA backend uses: arrays are numpy's, kernels run under the emulator.

Stricter than CuPy where that finds mistakes: everything has to happen on a device and a stream, fresh memory
is full of garbage, every array has guards around it that no kernel may touch, memory has an end, and what is
copied has to stay as it is until the device is waited for.
"""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.cuda_build import emulated_kernels

__all__ = ["FakeCupy"]

GUARD_BYTES = 256
GARBAGE = 0xA5
NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"


class OutOfMemoryError(MemoryError):
    """What CuPy raises when the device is full."""


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for anything else, full pinned memory included."""

    status = 2

    def __init__(self) -> None:
        super().__init__("cudaErrorMemoryAllocation: out of memory")


class FakeArray:
    """A one-dimensional cupy.ndarray: memory with guards around it, or a view of one."""

    def __init__(self, cupy: FakeCupy, size: int, dtype: Any) -> None:
        self._cupy = cupy
        size_bytes = size * np.dtype(dtype).itemsize
        cupy.take(size_bytes)
        weakref.finalize(self, cupy.give_back, size_bytes)
        self._whole = np.full(size_bytes + 2 * GUARD_BYTES + 64, GARBAGE, np.uint8)
        # Vector loads need their alignment.
        start = GUARD_BYTES + -(self._whole.ctypes.data + GUARD_BYTES) % 64
        self._guards = (self._whole[:start], self._whole[start + size_bytes :])
        self.content = self._whole[start : start + size_bytes].view(dtype)

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(memset_async=self._memset, copy_from_device_async=self._copy, array=self)

    @property
    def itemsize(self) -> int:
        return self.content.itemsize

    @property
    def nbytes(self) -> int:
        return self.content.nbytes

    @property
    def is_intact(self) -> bool:
        return all((guard == GARBAGE).all() for guard in self._guards)

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, part: slice) -> FakeArray:
        view = object.__new__(FakeArray)
        view._cupy, view._whole, view._guards = self._cupy, self._whole, self._guards
        view.content = self.content[part]
        view._kept = self
        assert len(view), "a view of nothing has no address"
        return view

    def set(self, source: np.ndarray) -> None:
        self._cupy.check_stream()
        assert isinstance(source, np.ndarray)
        assert (source.dtype, source.shape) == (self.content.dtype, self.content.shape)
        self.content[:] = source
        self._cupy.copy_of(source)

    def get(self, *, out: np.ndarray | None = None) -> np.ndarray:
        self._cupy.check_stream()
        self._cupy.synchronize()
        if out is None:
            return self.content.copy()
        assert (out.dtype, out.shape) == (self.content.dtype, self.content.shape)
        out[:] = self.content
        return out

    def _copy(self, source: SimpleNamespace, size: int) -> None:
        self._cupy.check_stream()
        self.content.view(np.uint8)[:size] = source.array.content.view(np.uint8)[:size]

    def _memset(self, byte: int, size: int) -> None:
        self._cupy.check_stream()
        assert size <= self.nbytes
        self.content.view(np.uint8)[:size] = byte


class FakeCupy:
    """The module `cupy` on a machine with one device."""

    __version__ = "fake"

    def __init__(
        self,
        *,
        double_ratio: int = 2,
        memory_bytes: int = 1 << 30,
        devices: int = 1,
        backwards: bool = False,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.pinned_bytes = 1 << 30
        self.launched: list[str] = []
        self.error: Exception | None = None
        """What the next launch raises."""
        self._backwards = backwards
        self._devices = devices
        self._double_ratio = double_ratio
        self._entered: list[str] = []
        self._copied: list[tuple[weakref.ref[np.ndarray], np.ndarray]] = []
        self.cuda = SimpleNamespace(
            Device=lambda number: _Context(
                self,
                f"device {number}",
                compute_capability="75",
                attributes={
                    "MultiProcessorCount": 2,
                    "SingleToDoublePrecisionPerfRatio": self._double_ratio,
                },
            ),
            Stream=lambda **_: _Context(self, "stream", synchronize=self.synchronize),
            Event=lambda: SimpleNamespace(record=self.check_stream, synchronize=self.check_stream),
            get_elapsed_time=lambda *_: 1.0,
            alloc_pinned_memory=self._pinned,
            runtime=SimpleNamespace(
                getDeviceCount=self._count,
                getDeviceProperties=lambda _: {"name": b"Emulated"},
                driverGetVersion=lambda: 11080,
            ),
        )

    def empty(self, size: int, dtype: Any) -> FakeArray:
        self.check_stream()
        assert size
        return FakeArray(self, size, dtype)

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> SimpleNamespace:  # noqa: N802
        assert "extern" in code
        assert all(option.startswith("-") for option in options)
        return SimpleNamespace(compile=lambda: None, get_function=self._function)

    def take(self, size_bytes: int) -> None:
        if size_bytes > self.memory_bytes:
            raise OutOfMemoryError(f"Out of memory allocating {size_bytes} bytes")
        self.memory_bytes -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        self.memory_bytes += size_bytes

    def check_stream(self) -> None:
        assert any(name.startswith("device") for name in self._entered), "no device is chosen"
        assert "stream" in self._entered, "this would happen on the default stream"

    def copy_of(self, source: np.ndarray) -> None:
        """Note that the device may read this memory until it is waited for."""
        owner = source
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        self._copied.append((weakref.ref(owner), owner.copy()))

    def synchronize(self) -> None:
        for owner, content in self._copied:
            assert owner() is not None, "memory was let go while the device may still have read it"
            assert (owner() == content).all(), "memory was changed while the device may still have read it"
        self._copied.clear()

    def _pinned(self, size_bytes: int) -> bytearray:
        self.check_stream()
        if size_bytes > self.pinned_bytes:
            raise CUDARuntimeError
        return bytearray([GARBAGE]) * size_bytes

    def _count(self) -> int:
        if not self._devices:
            raise RuntimeError(NO_DRIVER)
        return self._devices

    def _function(self, kernel: str) -> Any:
        def start(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            self.check_stream()
            self.launched.append(kernel)
            if self.error is not None:
                raise self.error
            words = [
                each.content.ctypes.data if isinstance(each, FakeArray) else int(each) & 2**64 - 1
                for each in arguments
            ]
            assert all(isinstance(each, FakeArray | np.int64) for each in arguments)
            emulated_kernels().launch(kernel, *grid, *block, words, backwards=self._backwards)
            assert all(each.is_intact for each in arguments if isinstance(each, FakeArray)), kernel

        return start


class _Context(SimpleNamespace):
    """A device or a stream: what is done inside `with` is done on it."""

    def __init__(self, cupy: FakeCupy, name: str, **fields: Any) -> None:
        super().__init__(**fields)
        self._cupy, self._name = cupy, name

    def __enter__(self) -> None:
        self._cupy._entered.append(self._name)

    def __exit__(self, *_: object) -> None:
        assert self._cupy._entered.pop() == self._name
