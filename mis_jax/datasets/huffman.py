"""Walks over the entropy-coded data of a baseline JPEG scan: do they add up to a picture?

ITU-T T.81, F.2.2. libjpeg warns where data are too few or too many. Here codes that no table has,
coefficients out of a block, padding and restart markers are looked at too, and whether values of
0 to 255 can have such coefficients: values of mean m have a variance of at most m (255 - m) (Bhatia
and Davis), give or take what quantisation rounds and what encoders overshoot to fight ringing.
"""

import numpy as np
from numba import njit

_FAST = 10  # bits that are looked up at once

# Of a block, 8 times its mean: white is 8 x 255, and mozjpeg overshoots it by 31 levels at most.
_WHITE = 8.0 * (255 + 31)
_SLACK = 8.0  # for the rounding of the transform

GOOD, EARLY, CODE, RUN, VALUE, LATE, RESTART = range(7)
WORDS = {
    EARLY: "its data end before the picture does",
    CODE: "a code that its tables do not have",
    RUN: "a block of more than 64 coefficients",
    VALUE: "a coefficient that no picture has",
    LATE: "data are left where the picture ends",
    RESTART: "a restart marker is missing",
}


@njit(nogil=True, cache=True)
def fill(counts, symbols, fast, slow):
    """Fills the lookups of a Huffman table; False: it has more codes than its bits can tell.

    Args:
        counts: uint8 [16], codes of 1 to 16 bits.
        symbols: uint8 [n], in the order of their codes.
        fast: uint16 [1024], by the next ten bits: length << 8 | symbol, 0 for longer codes.
        slow: int32 [17, 3], by length: the code behind those of this length, their first code, and
            the index of its symbol.
    """
    fast[:] = 0
    code = index = 0
    for length in range(1, 17):
        count = int(counts[length - 1])
        slow[length, 0], slow[length, 1], slow[length, 2] = code + count, code, index
        if code + count > 1 << length:
            return False
        if length <= _FAST:
            width = 1 << (_FAST - length)
            for k in range(count):
                at = (code + k) * width
                fast[at : at + width] = length << 8 | int(symbols[index + k])
        code, index = (code + count) << 1, index + count
    return True


@njit(nogil=True, cache=True)
def _code(bits, fast, slow, symbols):
    """Length << 8 | symbol of the code that 16 bits begin with; -1: there is none."""
    found = int(fast[bits >> (16 - _FAST)])
    if found:
        return found
    for length in range(_FAST + 1, 17):
        code = bits >> (16 - length)
        if code < slow[length, 0]:
            at = slow[length, 2] + code - slow[length, 1]
            return length << 8 | int(symbols[at]) if code >= slow[length, 1] else -1
    return -1


@njit(nogil=True, cache=True)
def walk(data, at, mcus, restart, blocks, tables, fast, slow, symbols, quantisation, sizes):
    """Reads a scan; (one of GOOD ... RESTART, the place of the marker behind it).

    Args:
        data: uint8 [n], the file.
        at: where the scan's data begin.
        mcus: units of the scan.
        restart: units between two restart markers; 0: there are none.
        blocks: int32 [b], the component of each block of a unit.
        tables: int32 [components, 2], the tables of DC and of AC.
        fast, slow, symbols: of all tables, as `fill` fills them: [8, 1024], [8, 17, 3], [8, 256].
        quantisation: int32 [components, 64].
        sizes: uint8 [components, 64], the most bits of an AC coefficient.
    """
    store = bits = fake = 0  # the low `bits` of store are to be read; the last `fake` are made up
    dc = np.zeros(len(quantisation), np.int64)
    end = len(data)
    for unit in range(mcus):
        if restart and unit and unit % restart == 0:
            state, at = _finish(data, at, store, bits, fake)
            if state != GOOD:
                return state, at
            if at + 1 >= end or data[at + 1] != 0xD0 + (unit // restart - 1) % 8:
                return RESTART, at
            at += 2
            store = bits = fake = 0
            dc[:] = 0
        for component in blocks:
            k = 0
            energy = error = 0.0
            while k < 64:
                while bits < 32:
                    value = data[at] if at < end else 0xFF
                    if value == 0xFF:
                        if at + 1 < end and data[at + 1] == 0:
                            at += 1
                        else:
                            value = 0
                            fake += 8
                            at -= 1
                    at += 1
                    store = store << 8 | value
                    bits += 8
                which = tables[component, 1 if k else 0]
                peek = (store >> (bits - 16)) & 0xFFFF
                found = int(fast[which, peek >> (16 - _FAST)])
                if not found:
                    found = _code(peek, fast[which], slow[which], symbols[which])
                    if found < 0:
                        return (CODE if bits - 16 >= fake else EARLY), at
                bits -= found >> 8
                size = found & 15
                if k == 0:
                    size = found & 255
                    if size > 11:
                        return VALUE, at
                    if size:
                        bits -= size
                        value = (store >> bits) & ((1 << size) - 1)
                        dc[component] += value if value >> (size - 1) else value - (1 << size) + 1
                    k = 1
                elif size:
                    k += (found & 255) >> 4
                    if k > 63:
                        return RUN, at
                    if size > sizes[component, k]:
                        return VALUE, at
                    bits -= size
                    value = (store >> bits) & ((1 << size) - 1)
                    if not value >> (size - 1):
                        value = (1 << size) - 1 - value
                    step = quantisation[component, k]
                    energy += float(value * step) ** 2
                    error += float(step) ** 2
                    k += 1
                elif (found & 255) == 0xF0:
                    k += 16
                    if k > 64:
                        return RUN, at
                elif found & 255:
                    return CODE, at
                else:
                    break
            step = quantisation[component, 0]
            if not _can_be(1024.0 + dc[component] * step, step / 2 + 1, energy, error):
                return VALUE, at
        if bits < fake:
            return EARLY, at
    return _finish(data, at, store, bits, fake)


@njit(nogil=True, cache=True)
def _can_be(mean, half, energy, error):
    """Whether values within 0 to 255 can have these coefficients.

    Args:
        mean: of the values, times 8; half: what it may be off by.
        energy: the sum of squares of the other coefficients; error: of their quantisation steps.
    """
    if mean < -half or mean > _WHITE + half:
        return False
    middle = _WHITE / 2
    mean = min(mean + half, middle) if mean < middle else max(mean - half, middle)
    most = np.sqrt(mean * (_WHITE - mean)) + np.sqrt(error) / 2 + _SLACK
    return energy <= most * most


@njit(nogil=True, cache=True)
def _finish(data, at, store, bits, fake):
    """Whether less than a byte is left before the next marker, all of its bits alike."""
    if bits < fake:
        return EARLY, at
    left = bits - fake
    padding = (store >> fake) & ((1 << left) - 1)
    if left >= 8 or padding not in (0, (1 << left) - 1):
        return LATE, at
    if at < len(data) and not (data[at] == 0xFF and (at + 1 >= len(data) or data[at + 1] != 0)):
        return LATE, at
    while at + 1 < len(data) and data[at] == 0xFF and data[at + 1] == 0xFF:
        at += 1  # fill
    return GOOD, at
