"""The backend on a CUDA device: the kernels, the rows and tables they read, the device through CuPy."""

from __future__ import annotations

__all__: list[str] = []
