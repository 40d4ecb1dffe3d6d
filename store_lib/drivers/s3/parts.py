"""How large the parts of an upload are, so that the parts that S3 allows hold the object."""

from store_lib.drivers.s3.options import LARGEST_PUT, MIB, MOST_PARTS

#: Parts of an upload of unknown length before they begin to grow.
_EVEN = 1000
#: Parts by which they then grow by a MiB: 10,000 of them hold more than 5 TiB in all.
_STEP = 7


def part_of_known(size: int, least: int) -> int:
    """Return the bytes of each part of an object of ``size`` bytes, in whole MiB."""
    needed = -(-size // MOST_PARTS)
    return max(least, -(-needed // MIB) * MIB)


def part_of_unknown(number: int, least: int) -> int:
    """Return the bytes of part ``number`` (from 1) of an object that may have any size.

    They grow slowly, so that a stream which ends early was never held in larger pieces of memory
    than it needed.
    """
    return min(LARGEST_PUT, least + max(0, number - _EVEN) // _STEP * MIB)
