"""Matrix products as the matrix units of a GPU make them from three products of TF32 numbers, bit by bit in float64."""

import numpy as np

# Numbers that a unit multiplies and adds at once, and the rows that the kernels take a step.
AT_ONCE, STEP = 8, 32


def to_tf32(values, *, truncate=False):
    """Return float32 values with 10 bits of fraction: rounded half away from zero, or cut off, as the units read."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = bits if truncate else bits + np.uint32(0x1000)
    return (rounded & np.uint32(0xFFFFE000)).view(np.float32)


def cut(values, exponent, bits):
    """Cut values off towards zero at `bits` bits below the leading bit 2^exponent."""
    unit = np.exp2(exponent - bits + 1.0)
    return np.trunc(values / unit) * unit


def exponent_of(values):
    """Return e with 2^e <= |value| < 2^(e + 1); very small for zero."""
    return np.frexp(np.where(values == 0, 1e-300, values))[1] - 1.0


def unit_product(left, right, total):
    """Return total + left (M, K) @ right (K, N): addends cut off at one bit more than float32 keeps, then the sum."""
    for start in range(0, left.shape[1], AT_ONCE):
        a = left[:, start : start + AT_ONCE].astype(np.float64)
        b = right[start : start + AT_ONCE].astype(np.float64)
        addends = np.concatenate((a[:, :, None] * b[None], total[:, None, :]), axis=1)
        largest = exponent_of(np.abs(addends).max(1))
        total = cut(addends, largest[:, None, :], 25).sum(1)
        total = cut(total, exponent_of(total), 24)
    return total


def product(left, right, total=0.0):
    """Return total + left (M, K) @ right (K, N) in float32, each factor split in two TF32 numbers.

    The product of the two small parts is left out. Every step of 32 rows starts from zero and is added in float32.
    """
    total = np.float32(total) + np.zeros((left.shape[0], right.shape[1]), np.float32)
    for start in range(0, left.shape[1], STEP):
        a, b = np.float32(left[:, start : start + STEP]), np.float32(right[start : start + STEP])
        large_a, large_b = to_tf32(a), to_tf32(b)
        small_a, small_b = to_tf32(a - large_a, truncate=True), to_tf32(b - large_b, truncate=True)
        parts = np.zeros(total.shape)
        for x, y in ((small_a, large_b), (large_a, small_b), (large_a, large_b)):
            parts = unit_product(x, y, parts)
        total = total + np.float32(parts)
    return total
