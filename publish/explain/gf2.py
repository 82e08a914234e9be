"""Far places of an MT19937 stream without drawing what lies before: the recurrence is linear over GF(2).

Polynomials are Python integers, bit i the coefficient of x^i. The characteristic polynomial is that of Matsumoto and
Nishimura, "Mersenne twister" (ACM TOMACS 8, 1998), section A; jumping as in Haramoto et al. (2008).
"""

from __future__ import annotations

import functools

DEGREE = 19937
_N, _M, _W, _R = 624, 397, 32, 31
_TWIST = 0x9908B0DF
_SPREAD = [int(f"{byte:b}", 4) for byte in range(256)]  # bit i goes to bit 2i


def _multiply(left: int, right: int) -> int:
    """The product, fast where ``right`` has few terms."""
    product = 0
    while right:
        low = right & -right
        product ^= left << (low.bit_length() - 1)
        right ^= low
    return product


def _square(polynomial: int) -> int:
    data = polynomial.to_bytes(-(-polynomial.bit_length() // 8), "little")
    return int.from_bytes(b"".join(_SPREAD[byte].to_bytes(2, "little") for byte in data), "little")


def _power(polynomial: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = _multiply(result, polynomial)
    return result


@functools.cache
def characteristic() -> int:
    """The polynomial of degree 19,937 that every bit of the word sequence obeys."""
    far, near = (1 << _N) | (1 << _M), (1 << (_N - 1)) | (1 << (_M - 1))
    bits = [_TWIST >> i & 1 for i in range(_W)]
    high = _power(far, _W - _R)
    total = _multiply(high, _power(near, _R))
    for i in range(_R):
        if bits[i]:
            total ^= _multiply(high, _power(near, _R - 1 - i))
    for i in range(_R, _W):
        if bits[i]:
            total ^= _power(far, _W - 1 - i)
    return total


def _reduce(polynomial: int) -> int:
    modulus = characteristic()
    while (excess := polynomial.bit_length() - 1 - DEGREE) >= 0:
        polynomial ^= modulus << excess
    return polynomial


@functools.lru_cache(maxsize=32)
def jump(distance: int) -> tuple[int, ...]:
    """Which of the words 0 to 19,936 add up (exclusive or) to word ``distance``; shifted alike for those after it."""
    remainder = 1
    for bit in f"{distance:b}":
        remainder = _square(remainder)
        if bit == "1":
            remainder <<= 1
        remainder = _reduce(remainder)
    return tuple(i for i in range(DEGREE) if remainder >> i & 1)
