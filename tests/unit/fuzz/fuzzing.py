"""Feeds a parser with inputs by chance: what it may raise, how long it may take, what it may hold.

A failure shows the input, and a smaller one that fails too, with the number of its batch, which is
also its seed.  ``STORE_LIB_FUZZ_BATCH=number`` begins with that batch.
"""

import contextlib
import dataclasses
import json
import logging
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from store_lib.exceptions import StoreError
from tests.deep import COUNTS
from tests.unit.fuzz.mutation import Mutator, shrunk

#: Inputs of a parser that is fast: in a deep run, and in a usual one.
DEEP, USUAL = 1_000_000, 2000
#: Inputs that come from one seed.
BATCH = 20
#: Seconds of processor time for one input: of a thread, and until it is interrupted.
_LIMIT = 1.0
_HUNG = 30.0
#: KiB by which the process may grow while it reads all inputs of a shard.
_GROWTH = 128 * 1024


@dataclasses.dataclass(frozen=True)
class Parser:
    """A parser of outside text.

    :param make: makes an input
    :param parse: parses it, and asserts what must hold; returns whether it was accepted
    :param refusals: what it may raise
    :param share: of the usual number of inputs, where one takes long
    :param why: why there are fewer
    :param around: what is there while it is fed
    """

    name: str
    make: Callable[[Mutator], Any]
    parse: Callable[[Any], Any]
    refusals: tuple[type[Exception], ...] = ()
    share: float = 1.0
    why: str = ""
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext

    def __str__(self) -> str:
        return self.name


class Hung(BaseException):
    """A parser did not end; no ``except Exception`` in it is to stop this."""


def feed(parser: Parser, batches: range, record: Callable[[str, object], None]) -> None:
    """Feed a parser with some batches of inputs."""
    first = int(os.environ.get("STORE_LIB_FUZZ_BATCH", "0"))
    limit = _LIMIT * (1 if sys.gettrace() is None else 5)
    counts: Counter[str] = Counter()
    slowest = 0.0
    with _quiet(), parser.around(), _alarm() as rearm:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the most so far counts from here on
        before = _memory()
        for number in batches:
            mutator = Mutator(first + number)
            rearm()
            for _ in range(BATCH):
                given = parser.make(mutator)
                began = time.thread_time()
                verdict = _verdict(parser, given)
                took = time.thread_time() - began
                slowest = max(slowest, took)
                if verdict.startswith("!"):
                    pytest.fail(_report(parser, first + number, given, verdict))
                assert took < limit, _report(parser, first + number, given, f"took {took:.1f} s")
                counts[verdict] += 1
            grown = _memory() - before
            assert grown < _GROWTH, f"{parser.name}, batch {first + number}: {grown} KiB more"
    told = {"name": parser.name, "counts": counts, "slowest": slowest, "why": parser.why}
    record(COUNTS, json.dumps(told))


def _verdict(parser: Parser, given: Any) -> str:
    """Return whether an input was accepted, or by which error it was refused; ``!`` for a fault."""
    try:
        return "accepted" if parser.parse(given) else "passed over"
    except parser.refusals as error:
        if isinstance(error, StoreError) and not str(error).isprintable():
            return f"!the text of {type(error).__name__} has characters that cannot be printed"
        return type(error).__name__
    except Hung:
        raise
    except Exception as error:
        return f"!{type(error).__name__}: {ascii(error)[:300]} at {_where(error)}"


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _kind(verdict: str) -> str:
    return verdict.partition(":")[0]


def _report(parser: Parser, batch: int, given: Any, what: str) -> str:
    least = given
    if what.startswith("!"):
        kind = _kind(what)
        least = shrunk(given, lambda each: _kind(_verdict(parser, each)) == kind)
        least_of = f"{ascii(least)[:600]}, of which: {_verdict(parser, least)[1:]}"
        what = f"{what[1:]}\nthe least input: {least_of}"
    return f"{parser.name}, batch {batch}: {what}\nthe input: {ascii(given)[:2000]}"


def _memory() -> int:
    """Return the most memory that the process has had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing: pytest would keep it all."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class _alarm:
    """Interrupts a parser that does not end, once it has had a lot of processor time."""

    def __enter__(self) -> Callable[[], None]:
        self._before = signal.signal(signal.SIGVTALRM, _interrupt)
        return lambda: signal.setitimer(signal.ITIMER_VIRTUAL, _HUNG) and None

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, self._before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    inner: Any = frame
    while inner is not None and "given" not in inner.f_locals:
        inner = inner.f_back
    given = ascii(inner.f_locals["given"])[:2000] if inner is not None else "?"
    raise Hung(f"a batch took {_HUNG:.0f} s of processor time; the input at work: {given}")


def shards(parser: Parser, deep: bool) -> Iterator[range]:
    """Yield the batches of each test of a parser: in a deep run there are several."""
    total = int(os.environ.get("STORE_LIB_FUZZ_INPUTS", DEEP if deep else USUAL))
    batches = max(1, round(total * parser.share / BATCH))
    size = max(1, batches // (8 if deep else 1))
    for start in range(0, batches, size):
        yield range(start, min(batches, start + size))
