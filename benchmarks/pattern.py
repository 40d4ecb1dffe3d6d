"""Makes a reproducible stream of pseudo-random blocks, and writes it to a pipe when run.

Needs the standard library alone, so that any interpreter can be at the pipe's other end.
"""

import os
import random
import sys
from collections.abc import Iterator

#: Bytes of a block; the last one of a stream may be shorter.
BLOCK = 1024 * 1024


def blocks(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes; every block is marked with its number, so that a swap shows."""
    base = bytearray(random.Random(5).randbytes(BLOCK))
    for number in range((size + BLOCK - 1) // BLOCK):
        base[:8] = number.to_bytes(8, "little")
        yield bytes(memoryview(base)[: min(BLOCK, size - number * BLOCK)])


def main() -> int:
    """Write as many bytes to the standard output as the first argument says."""
    output = sys.stdout.fileno()
    try:
        for block in blocks(int(sys.argv[1])):
            view = memoryview(block)
            while view:
                view = view[os.write(output, view) :]
    except BrokenPipeError:
        return 1  # the reader is gone, and says itself why
    return 0


if __name__ == "__main__":
    sys.exit(main())
