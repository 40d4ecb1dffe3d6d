"""Finds the zeros in a chunk that can become holes."""

import functools


def runs(data: memoryview | bytes, block: int) -> list[tuple[int, int, bool]]:
    """Split a chunk into runs of zeros and of data: ``(start, length, is_hole)``.

    Looks at whole blocks of ``block`` bytes; a shorter last one counts as a block.
    """
    zeros = _zeros(block)
    view = memoryview(data)
    whole = len(view)
    found: list[tuple[int, int, bool]] = []
    for start in range(0, whole, block):
        length = min(block, whole - start)
        # A look at the first bytes spares nearly every block of data the full comparison, and
        # bytes compare many times faster than views do.
        head = view[start : start + 64]
        is_hole = bytes(head) == zeros[: len(head)]
        if is_hole:
            is_hole = bytes(view[start : start + length]) == zeros[:length]
        if found and found[-1][2] is is_hole:
            first, before, _ = found[-1]
            found[-1] = (first, before + length, is_hole)
        else:
            found.append((start, length, is_hole))
    return found


@functools.lru_cache(maxsize=4)
def _zeros(block: int) -> bytes:
    return bytes(block)
