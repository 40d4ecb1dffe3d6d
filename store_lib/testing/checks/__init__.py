"""The checks, grouped by subject; importing this fills the catalogue."""

from store_lib.testing.checks import (
    capability,
    closing,
    contents,
    crash,
    deletion,
    digests,
    failure,
    load,
    names,
    progress,
    race,
    ranges,
    reading,
    secrecy,
)

__all__ = [
    "capability",
    "closing",
    "contents",
    "crash",
    "deletion",
    "digests",
    "failure",
    "load",
    "names",
    "progress",
    "race",
    "ranges",
    "reading",
    "secrecy",
]
