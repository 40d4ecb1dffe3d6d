"""Generates a reproducible pseudo-random stream; as a program, writes it to standard output.

Imports only the standard library, so that any interpreter can run it.
"""

import os
import random
import sys
from collections.abc import Iterator

#: Bytes of a block; the last one of a stream may be shorter.
BLOCK = 1024 * 1024


def blocks(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes; every block contains its number, which reveals a wrong order."""
    base = bytearray(random.Random(5).randbytes(BLOCK))
    for number in range((size + BLOCK - 1) // BLOCK):
        base[:8] = number.to_bytes(8, "little")
        yield bytes(memoryview(base)[: min(BLOCK, size - number * BLOCK)])


def main() -> int:
    """Write the number of bytes in the first argument to standard output."""
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
