"""GPUs by the number of threads that they hold at once, which is all that random numbers depend on.

Streaming multiprocessors x threads of each, from NVIDIA's architecture white papers and the CUDA programming guide's
table of compute capabilities. Cards that were cut down, or shared as MIG slices, have other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

from publish.explain.cuda import BLOCK

PROCESSORS: Mapping[str, tuple[int, int]] = {
    "P100": (56, 2048),
    "V100": (80, 2048),
    "T4": (40, 1024),
    "RTX 2080 Ti": (68, 1024),
    "Quadro RTX 8000": (72, 1024),
    "A100": (108, 2048),
    "A30": (56, 2048),
    "A10": (72, 1536),
    "A40": (84, 1536),
    "RTX A6000": (84, 1536),
    "RTX 3090": (82, 1536),
    "RTX 4090": (128, 1536),
    "L4": (58, 1536),
    "L40": (142, 1536),
    "RTX 6000 Ada": (142, 1536),
    "H100 PCIe": (114, 2048),
    "H100 SXM": (132, 2048),
    "H200": (132, 2048),
    "GH200": (132, 2048),
    "B200": (148, 2048),
}
THREADS: Mapping[str, int] = {name: count * (size // BLOCK) * BLOCK for name, (count, size) in PROCESSORS.items()}
DISTINCT: tuple[int, ...] = tuple(sorted(set(THREADS.values())))


def with_threads(resident: int) -> tuple[str, ...]:
    """The GPUs that hold exactly this many threads."""
    return tuple(name for name, threads in THREADS.items() if threads == resident)


def with_at_least(resident: int) -> tuple[str, ...]:
    """The GPUs that hold this many threads or more."""
    return tuple(name for name, threads in THREADS.items() if threads >= resident)
