"""The kinds of arguments that the commands take."""

import argparse
import re

from store_lib.exceptions import Invalid

#: More digits than any number of bytes or seconds has; Python converts no more than some thousand.
_DIGITS = 19

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def count(text: str) -> int:
    """Return a number of bytes, which is 0 or more."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise argparse.ArgumentTypeError(f"expected a number of bytes, got {text[:80]!r}")
    return int(text)


def digest(text: str) -> tuple[str, str]:
    """Return the algorithm and the hexadecimal digest of ``ALGORITHM:HEX``."""
    algorithm, _, value = text.partition(":")
    if not algorithm or not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", value):
        raise argparse.ArgumentTypeError(
            f"expected ALGORITHM:HEX such as sha256:e3b0c442..., got {text!r}"
        )
    return algorithm, value.lower()


def duration(text: str) -> float:
    """Return the seconds of a time such as ``90``, ``15m``, ``12h``, ``7d`` or ``2w``."""
    found = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]+)?)([smhdw]?)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 90 (seconds), 15m, 12h, 7d or 2w, got {text[:80]!r}"
        )
    return float(found[1]) * _UNITS[found[2]]


def add_store(parser: argparse.ArgumentParser, help: str) -> None:
    """Give a command the option ``--store``."""
    parser.add_argument("--store", metavar="STORE", help=help)


def add_expect(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--expect``."""
    parser.add_argument(
        "--expect",
        type=digest,
        action="append",
        default=[],
        metavar="ALGORITHM:HEX",
        help="The digest that the data must have; may be given several times.",
    )


def expected(parsed_args: argparse.Namespace) -> dict[str, str]:
    """Return the digests of ``--expect`` by algorithm.

    :raises Invalid: two different ones of one algorithm
    """
    found: dict[str, str] = {}
    for algorithm, value in parsed_args.expect:
        if found.setdefault(algorithm, value) != value:
            raise Invalid(f"Expected one {algorithm} digest, got two different ones.")
    return found
