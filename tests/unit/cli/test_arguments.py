"""The types of arguments, and usage errors."""

import argparse

import pytest

from store_lib.cli.arguments import count, digest, duration
from store_lib.cli.formatting import ByteSize, Optional, Pairs, Words, timestamp


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604800), ("2w", 1209600)],
)
def test_duration(text, seconds):
    """A time has a unit or is in seconds."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (duration, "7y"),
        (duration, "-1"),
        (duration, ""),
        (duration, "٣"),
        (duration, "9" * 400),
        (count, "-1"),
        (count, "1k"),
        (count, "9" * 5000),
        (count, ""),
        (digest, "sha256"),
        (digest, "sha256:"),
        (digest, "sha256:xyz"),
        (digest, "sha256:abc"),
        (digest, ":00"),
    ],
)
def test_refused(kind, text):
    """A wrong argument is refused; the message says what was expected and got."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"expected .*, got"):
        kind(text)


def test_digest_is_lower_case():
    """A digest may be in upper case."""
    assert digest("sha256:ABCD") == ("sha256", "abcd")


@pytest.mark.parametrize(
    "argv",
    [
        ("add",),
        ("add", "one", "two"),
        ("add", "-", "--size", "many"),
        ("get", "file:///x", "--offset", "-1"),
        ("get", "file:///x", "--expect", "md5"),
        ("frobnicate",),
        ("ad", "file"),
        ("--frob",),
        ("add", "-", "-f", "nonsense"),
        ("-q", "-v", "list"),
        ("--log-file", "/nonexistent/log", "list"),
    ],
    ids=" ".join,
)
def test_a_usage_error_is_one_line(run, argv):
    """A wrong command line ends with status 2 and one line that refers to the help."""
    outcome = run(*argv)
    assert outcome.status == 2
    assert outcome.out == b""
    assert outcome.err.startswith("store-lib: error: ")
    assert outcome.err.count("\n") == 1
    assert "--help" in outcome.err


def test_values_for_people_and_programs():
    """A value is readable in a table and plain for programs."""
    assert ByteSize(1536).human_readable() == "1.5 KiB"
    assert ByteSize(3 * 1024**5).human_readable() == "3072 TiB"
    assert ByteSize(None).human_readable() == ""
    assert Words(["a", "b"]).human_readable() == "a, b"
    assert Pairs({"a": "1", "b": "2"}).human_readable() == "a=1, b=2"
    assert Optional(None).human_readable() == ""
    assert timestamp(0).machine_readable() == "1970-01-01T00:00:00Z"
    assert timestamp(None).machine_readable() is None
