"""The types of the commands' arguments, and options that several commands have."""

import argparse
import re

from store_lib.exceptions import Invalid

#: Maximum digits of a number of bytes; Python refuses to convert thousands of digits.
_MAX_DIGITS = 19

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def count(text: str) -> int:
    """Parse a number of bytes."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise argparse.ArgumentTypeError(f"expected a number of bytes, got {text[:80]!r}")
    return int(text)


def digest(text: str) -> tuple[str, str]:
    """Parse ``ALGORITHM:HEX`` into the algorithm and the digest in lower case."""
    algorithm, _, value = text.partition(":")
    if not algorithm or not re.fullmatch(r"(?:[0-9a-fA-F]{2})+", value):
        raise argparse.ArgumentTypeError(
            f"expected ALGORITHM:HEX such as sha256:e3b0c442..., got {text!r}"
        )
    return algorithm, value.lower()


def duration(text: str) -> float:
    """Parse a time such as ``90``, ``15m``, ``12h``, ``7d`` or ``2w`` into seconds."""
    match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]+)?)([smhdw]?)", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 90 (seconds), 15m, 12h, 7d or 2w, got {text[:80]!r}"
        )
    return float(match[1]) * _UNITS[match[2]]


def add_store(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option ``--store`` to a command."""
    parser.add_argument("--store", metavar="STORE", help=help)


def add_expect(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--expect`` to a command."""
    parser.add_argument(
        "--expect",
        type=digest,
        action="append",
        default=[],
        metavar="ALGORITHM:HEX",
        help="Expected digest of the data; any other is an error. May be given several times.",
    )


def expected(parsed_args: argparse.Namespace) -> dict[str, str]:
    """Return the digests of ``--expect`` by algorithm.

    :raises Invalid: there are two different digests for an algorithm
    """
    digests: dict[str, str] = {}
    for algorithm, value in parsed_args.expect:
        if digests.setdefault(algorithm, value) != value:
            raise Invalid(f"Expected one {algorithm} digest, got two different ones.")
    return digests
