"""``tensor.normal_`` of a GPU, element by element in plain Python: from the published sources, sharing nothing.

Philox4x32-10: Salmon et al. (SC 2011), figure 2. Kernel: torch DistributionTemplates.h. Normals: curand_normal.h.
"""

from __future__ import annotations

import functools
import math

import numpy as np

MASK = 2**32 - 1


def philox_block(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds, the key bumped between them."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        one, two = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = two >> 32 ^ b ^ left, two & MASK, one >> 32 ^ d ^ right, one & MASK
        left, right = left + 0x9E3779B9 & MASK, right + 0xBB67AE85 & MASK
    return [a, b, c, d]


def pair(x: int, y: int) -> tuple[float, float]:
    """Box-Muller of two words; the inputs are rounded to float32 as the device code rounds them."""
    u = float(np.float32(x) * np.float32(2**-32) + np.float32(2**-33))
    v = float((np.float32(y) * np.float32(2**-32) + np.float32(2**-33)) * np.float32(2 * math.pi))
    radius = math.sqrt(-2 * math.log(u))
    return radius * math.sin(v), radius * math.cos(v)


@functools.lru_cache(maxsize=64)
def standard_normals(seed: int, offset: int, count: int, resident: int) -> tuple[np.ndarray, int]:
    """(float32 normals in the tensor's order, the offset afterwards) on a GPU with ``resident`` threads."""
    blocks = min(resident // 256, (count + 255) // 256)
    threads = 256 * blocks
    values = np.zeros(count, np.float32)
    calls = (count - 1) // (threads * 4) + 1
    key = [seed & MASK, seed >> 32]
    for thread in range(threads):
        for call in range(calls):
            first = thread + threads * 4 * call
            if first >= count:
                break
            number = offset // 4 + call
            x, y, z, w = philox_block([number & MASK, number >> 32, thread & MASK, thread >> 32], key)
            four = pair(x, y) if first + 2 * threads >= count else (*pair(x, y), *pair(z, w))
            for turn, normal in enumerate(four):
                if first + threads * turn < count:
                    values[first + threads * turn] = normal
    return values, offset + 4 * calls
