"""Uploads: chunks go from a source to digests and a sink, are verified, and committed."""

import dataclasses
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from store_lib.driver import PartWriter, PositionWriter, Stat, Verifier
from store_lib.exceptions import SizeMismatch
from store_lib.location import Location
from store_lib.transfer.budget import Budget
from store_lib.transfer.buffers import Buffer, BufferPool
from store_lib.transfer.digest import compare, new_digest
from store_lib.transfer.report import Meter, TransferReport
from store_lib.transfer.requests import Requests
from store_lib.transfer.retry import Retry
from store_lib.transfer.sinks import first_part_of, max_buffers, min_buffers, open_sink, store_small
from store_lib.transfer.source import Source
from store_lib.transfer.timeouts import HangGuard, TransferClock
from store_lib.transfer.workers import TransferWorkers, WorkerPool

#: Called with the number of bytes done so far and the total, which is ``None`` if unknown.
Progress = Callable[[int, int | None], object]

#: Bytes that are read from a source of unknown size when memory for more is not available.
_HEAD = 16 * 1024


@dataclasses.dataclass(slots=True, kw_only=True)
class UploadSpec:
    """The parameters of an upload, from the caller and from the store."""

    #: Size of the object in bytes; ``None`` if unknown.
    size: int | None = None
    digests: tuple[str, ...] = ()
    #: Hexadecimal digests that the object must have, by name; ``digests`` includes these names.
    expected: Mapping[str, str] | None = None
    verifier: Verifier | None = None
    progress: Progress | None = None
    clock: TransferClock
    retry: Retry
    guard: HangGuard
    budget: Budget
    #: Deletes the object, if the upload has published it and has failed with the error after that.
    withdraw: Callable[[Location, BaseException], None]
    #: Bytes of memory for the reading side of a copy; reserved together with the upload's own.
    extra_memory: int = 0


@dataclasses.dataclass(slots=True)  # freezing would double the cost of making one
class UploadResult:
    """The result of an upload."""

    location: Location
    size: int
    digests: dict[str, str]
    report: TransferReport


def upload(
    create: Callable[[], PartWriter | PositionWriter], source: Source, spec: UploadSpec
) -> UploadResult:
    """Store all bytes of ``source`` through a writer, and publish the object.

    Nothing is published unless size, digests and signature are right.  After any error the writer
    is aborted once; an error of ``abort`` is added to the first error as a note.
    """
    requests = Requests(spec.retry, spec.guard, spec.clock, Meter())
    process = os.getpid()
    try:
        transfer = _Upload(requests.create(create), requests, source, spec)
        return transfer.result(transfer.run())
    except BaseException as error:
        if os.getpid() == process:  # not in a child that the source forked
            requests.roll_back(error, spec.withdraw)
        raise


def copy(
    create: Callable[[], PartWriter | PositionWriter],
    location: Location,
    stat: Callable[[Location], Stat],
    spec: UploadSpec,
) -> UploadResult:
    """Have the backend copy the object at ``location``, and publish the copy.

    After a temporary error, ``resolve`` of the writer checks whether the copy was stored.  If not,
    the writer is aborted, and the copy is repeated with a new writer.  A failed copy leaves nothing
    behind.

    :param stat: returns the new object's size and metadata
    """
    meter = Meter()
    requests = Requests(spec.retry, spec.guard, spec.clock, meter)
    try:
        copied = spec.retry.call(
            lambda: requests.copy(requests.create(create), location),
            on_retry=requests.count_retry,
        )
        looking = functools.partial(spec.guard.call, functools.partial(stat, copied))
        size = spec.retry.call(looking, "looking at what is stored").size or 0
        meter.parts, meter.store = 1, spec.clock.elapsed()
        return UploadResult(copied, size, {}, meter.report(size, meter.store, 0.0))
    except BaseException as error:
        requests.roll_back(error, spec.withdraw)
        raise


class _Upload:
    """One upload: the loop from the source to the commit."""

    def __init__(
        self,
        writer: PartWriter | PositionWriter,
        requests: Requests,
        source: Source,
        spec: UploadSpec,
    ) -> None:
        self._writer = writer
        self._requests = requests
        self._source = source
        self._spec = spec
        self._hashes = {name: new_digest(name) for name in spec.digests}
        self._digest_seconds = 0.0
        #: Bytes of memory needed in addition to the chunks.
        self._extra_memory = spec.extra_memory + writer.client_memory
        #: Number of bytes read from the source, and of bytes last reported as progress.
        self._total = 0
        self._reported = -1

    def run(self) -> Location:
        """Read all chunks, pass them to the digests and the sink, verify, and commit."""
        spec, writer, requests = self._spec, self._writer, self._requests
        if spec.size is not None and spec.size <= writer.chunk_size:
            location = self._store_if_small(spec.size + 1)
            assert location is not None  # a source with more bytes has raised SizeMismatch
            return location
        first_part = first_part_of(writer, spec.size)
        minimum = min_buffers(writer, spec.size, first_part, spec.budget.limit)
        memory = minimum * writer.chunk_size + self._extra_memory
        if spec.size is None and not spec.budget.available(memory):
            location = self._store_if_small(min(_HEAD, writer.chunk_size))
            if location is not None:
                return location
        requests.failure.event = threading.Event()
        with (
            spec.budget.reserve(memory, spec.clock) as reservation,
            BufferPool(
                writer.chunk_size,
                reservation,
                minimum=minimum,
                maximum=max_buffers(writer, first_part),
                clock=spec.clock,
                failure=requests.failure,
            ) as pool,
        ):
            buffer = pool.take()
            ended = self._read(buffer, min(writer.chunk_size, first_part or writer.chunk_size))
            if ended:
                return self._store_small(buffer.data)
            senders = WorkerPool("store", writer.concurrency, pool)
            sink = open_sink(writer, requests, spec.size, first_part, pool, senders)
            consumers = [(use, WorkerPool(name, 1, pool)) for name, use in self._uses()]
            all_workers = [senders, *(consumer for _, consumer in consumers)]
            with TransferWorkers(pool, all_workers, on_end=sink.stop) as workers:
                workers.start()
                while True:
                    buffer.retain(len(consumers) + 1)
                    for use, consumer in consumers:
                        consumer.put(functools.partial(use, buffer.data), buffer.release)
                    sink.put(buffer)
                    self._report_progress()
                    if ended:
                        break
                    buffer = pool.take()
                    ended = self._read(buffer, sink.next_chunk_size())
                    if ended and not len(buffer.data):
                        break
                sink.finish()
                for _, consumer in consumers:
                    consumer.drain()
                self._verify()
                location = sink.commit()
        requests.meter.store += senders.busy
        requests.meter.wait += pool.waited
        self._digest_seconds = max((consumer.busy for _, consumer in consumers), default=0.0)
        return location

    def result(self, location: Location) -> UploadResult:
        """Return the result of an upload that has ended."""
        seconds, concurrency = self._spec.clock.elapsed(), self._writer.concurrency
        return UploadResult(
            location,
            self._total,
            {name: digest.hexdigest() for name, digest in self._hashes.items()},
            self._requests.meter.report(self._total, seconds, self._digest_seconds, concurrency),
        )

    def _uses(self) -> list[tuple[str, Callable[[Any], object]]]:
        """Return the functions that get every chunk in order: the digests' and the verifier's."""
        uses = [(name, digest.update) for name, digest in self._hashes.items()]
        if self._spec.verifier is not None:
            uses.append(("verifier", self._spec.verifier.update))
        return uses

    def _store_if_small(self, limit: int) -> Location | None:
        """Store the object, if it has fewer than ``limit`` bytes, from memory and without threads.

        If it has more, put the bytes back into the source and return ``None``.  So a transfer holds
        no memory while it waits for memory, and a small object of unknown size waits no longer than
        one of known size.
        """
        with self._spec.budget.reserve(limit + self._extra_memory, self._spec.clock):
            buffer = Buffer(limit)
            if self._read(buffer, limit):
                return self._store_small(buffer.data)
            self._source.put_back(bytes(buffer.data))
            self._total = self._spec.clock.done = 0
            return None

    def _store_small(self, data: memoryview | bytes) -> Location:
        """Digest, verify and store an object whose bytes are all in memory."""
        began = time.perf_counter()
        for digest in self._hashes.values():
            digest.update(data)
        if self._spec.verifier is not None:
            self._spec.verifier.update(data)
        self._digest_seconds = time.perf_counter() - began
        self._verify()
        return store_small(self._writer, self._requests, data)

    def _read(self, buffer: Buffer, limit: int) -> bool:
        """Fill ``buffer`` from the source; return whether the source's end was reached."""
        clock, size = self._spec.clock, self._spec.size
        began = time.perf_counter()
        try:
            ended = self._source.fill(buffer, limit)
        finally:
            self._requests.meter.source += time.perf_counter() - began
        if ended:
            self._source.check_end()
        clock.progress()
        self._total += len(buffer.data)
        clock.done = self._total
        if size is not None and self._total > size:
            raise SizeMismatch(expected=size, got="more")
        clock.check()
        return ended

    def _report_progress(self) -> None:
        """Report the number of bytes read, unless it was reported before."""
        progress = self._spec.progress
        if progress is not None and self._reported != self._total:
            self._reported = self._total
            progress(self._total, self._spec.size)

    def _verify(self) -> None:
        """Check size, digests and verifier, in this order, after all bytes have been read."""
        size, expected = self._spec.size, self._spec.expected
        if size is not None and self._total != size:
            raise SizeMismatch(expected=size, got=self._total)
        if expected:
            compare({name: self._hashes[name].hexdigest() for name in expected}, expected)
        verify = getattr(self._spec.verifier, "verify", None)
        if callable(verify):
            verify()
        if self._spec.progress is not None:
            self._report_progress()
