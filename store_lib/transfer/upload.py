"""The way of the bytes in: a source, its digests, and a writer, in a window; then the verdict."""

import dataclasses
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from store_lib.display import get_logger
from store_lib.driver import PartWriter, PositionWriter, Stat, Writer
from store_lib.exceptions import Duplicate, SizeMismatch, StoreError, TimeoutError
from store_lib.location import Location
from store_lib.transfer.bodies import MemoryBody
from store_lib.transfer.budget import Budget
from store_lib.transfer.buffers import Buffer, BufferPool, Failure, Stopped
from store_lib.transfer.digest import compare, new_digest
from store_lib.transfer.holes import runs
from store_lib.transfer.report import TransferReport
from store_lib.transfer.retry import Retry, is_temporary
from store_lib.transfer.sinks import PartSink, PositionSink, send_once
from store_lib.transfer.source import Source
from store_lib.transfer.timeouts import HangGuard, TransferClock, checkpoint
from store_lib.transfer.workers import ChunkWorker, Team, WorkerPool

LOG = get_logger(__name__)

#: Called with the bytes done so far and the bytes to come in all, ``None`` when unknown.
Progress = Callable[[int, int | None], object]

#: Bytes that are read of a source of unknown size while there is no memory for more.
_HEAD = 16 * 1024
#: Seconds that threads stuck in a call are waited for, once a time limit has given them up.
GRACE = 5.0


@dataclasses.dataclass(slots=True, kw_only=True)
class UploadSpec:
    """What a caller asks of an upload beyond the bytes, and what its store does it with."""

    #: Bytes to come; ``None`` when unknown.
    size: int | None = None
    digests: tuple[str, ...] = ()
    #: Hexadecimal digests by name that the bytes must have; each name is among ``digests``.
    expected: Mapping[str, str] | None = None
    verifier: Any = None
    progress: Progress | None = None
    watch: TransferClock
    retry: Retry
    guard: HangGuard
    budget: Budget
    #: Removes what was published by an upload that raises all the same.
    withdraw: Callable[[Location, BaseException], None]
    #: Bytes that the other end of a copy needs; reserved together with the upload's own.
    extra_memory: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class UploadResult:
    """What was stored, and where."""

    location: Location
    size: int
    digests: dict[str, str]
    report: TransferReport


def upload(
    create: Callable[[], PartWriter | PositionWriter], source: Source, spec: UploadSpec
) -> UploadResult:
    """Move everything from ``source`` through a writer and publish it.

    Nothing is published unless size, digests and verifier agree.  Whatever goes wrong, the
    writer is aborted once; what its ``abort`` raises is added to the first error as a note.
    """
    writer = transfer = None
    process = os.getpid()
    try:
        writer = spec.retry.call(
            functools.partial(spec.guard.call, create, on_late_result=lambda made: made.abort()),
            "beginning",
        )
        spec.watch.progress()
        transfer = Upload(writer, source, spec)
        return transfer.run()
    except BaseException as error:
        if os.getpid() != process:
            raise  # in a child that the source forked: the upload is the parent's
        _give_up(writer, transfer, spec, error)
        raise


def copy(
    create: Callable[[], PartWriter | PositionWriter],
    location: Location,
    stat: Callable[[Location], Stat],
    spec: UploadSpec,
) -> UploadResult:
    """Make a new object from the one at ``location``, which a writer copies in the backend itself.

    A writer copies once.  After a temporary error it is aborted, unless :meth:`Writer.resolve`
    finds that its copy was stored, and a new one is created.  Whatever goes wrong in the end, the
    last writer is aborted as that of :func:`upload` is.

    :param stat: looks at the new object; its size becomes the outcome's
    """
    copying = _Copy(create, spec)
    try:
        made = spec.retry.call(
            functools.partial(copying.attempt, location), on_repeat=copying.give_up
        )
        looking = functools.partial(spec.guard.call, functools.partial(stat, made))
        size = spec.retry.call(looking, "looking at what is stored").size or 0
        return UploadResult(made, size, {}, copying.report(size))
    except BaseException as error:
        copying.give_up(error)
        raise


class _Copy:
    """The attempts of one copy, each by a writer of its own."""

    def __init__(self, create: Callable[[], PartWriter | PositionWriter], spec: UploadSpec) -> None:
        self._create = create
        self._spec = spec
        self._source = Source()  # of no bytes; its meter counts
        self._writer: PartWriter | PositionWriter | None = None
        self._transfer: Upload | None = None

    def attempt(self, location: Location) -> Location:
        """Have a new writer copy from ``location``; return where the new object lies."""
        guard = self._spec.guard
        self._writer = guard.call(self._create, on_late_result=lambda made: made.abort())
        self._spec.watch.progress()
        self._transfer = Upload(self._writer, self._source, self._spec)
        return self._transfer.copy(location)

    def give_up(self, error: BaseException | None = None) -> None:
        """Remove what the last attempt made.

        :param error: ended the copy; ``None`` where another attempt follows
        """
        writer, transfer = self._writer, self._transfer
        if error is None:
            self._source.meter.count(retries=1)
        _give_up(writer, transfer, self._spec, error or Stopped())
        self._writer = self._transfer = None

    def report(self, size: int) -> TransferReport:
        """Return the report of a copy that succeeded."""
        meter, spent = self._source.meter, self._spec.watch.elapsed()
        meter.parts, meter.store = 1, spent
        return meter.report(size, spent, 0.0)


def _give_up(
    writer: Writer | None, transfer: "Upload | None", spec: UploadSpec, error: BaseException
) -> None:
    """Remove what an upload that ends with ``error`` made: the object or what was to become it."""
    location = transfer.published(error) if transfer is not None else None
    if location is not None:
        spec.withdraw(location, error)
    elif writer is not None:
        _abort(writer, error, spec)


def _abort(writer: Writer, error: BaseException, spec: UploadSpec) -> None:
    patience = spec.guard.timeout
    if isinstance(error, TimeoutError):  # what hung will hang again
        patience = min(patience, GRACE)
    try:
        spec.retry.beyond().call(
            functools.partial(spec.guard.call, writer.abort, timeout=patience), "cleaning up"
        )
    except Exception as trouble:
        LOG.warning("Cleaning up after a failed upload failed: %s", trouble)
        error.add_note(
            f"Cleaning up failed too ({type(trouble).__name__}: {trouble}); what is left can be "
            "listed and swept as an incomplete upload."
        )


class Upload:
    """One upload at work."""

    def __init__(
        self, writer: PartWriter | PositionWriter, source: Source, spec: UploadSpec
    ) -> None:
        self.writer = writer
        self.source = source
        self.spec = spec
        self.meter = source.meter
        self.watch = spec.watch
        self.retry = spec.retry
        self.total = 0
        self.told = -1
        self.digest_seconds = 0.0
        self.hashes = {name: new_digest(name) for name in spec.digests}
        self.failure = Failure()
        #: Whether a request still hung when everything else had ended.
        self.abandoned = False
        #: Whether the request that publishes has been begun.
        self._publishing = False
        #: Where the object lies, once it is published.
        self._location: Location | None = None

    @property
    def _beside(self) -> int:
        """Bytes of memory beside the chunks."""
        return self.spec.extra_memory + self.writer.client_memory

    # The steps that every way has in common.

    def run(self) -> UploadResult:
        small = self.spec.size is not None and self.spec.size <= self.writer.chunk_size
        if small:
            location = self._run_small()
        elif isinstance(self.writer, PositionWriter):
            location = self._run_window(PositionSink(self, self.writer))
        else:
            location = self._run_window(PartSink(self, self.writer))
        report = self.meter.report(
            self.total, self.watch.elapsed(), self.digest_seconds, self.writer.concurrency
        )
        digests = {name: digest.hexdigest() for name, digest in self.hashes.items()}
        return UploadResult(location, self.total, digests, report)

    def read(self, buffer: Buffer, limit: int) -> bool:
        """Fill ``buffer`` from the source; say whether the end was seen."""
        end = self.source.fill(buffer, limit)
        self.watch.progress()
        self.total += len(buffer.data)
        self.watch.done = self.total
        size = self.spec.size
        if size is not None and self.total > size:
            raise SizeMismatch(
                f"Expected {size} bytes, got more. Nothing was stored; declare the true size, "
                "or none."
            )
        self.watch.check()
        return end

    def tell(self) -> None:
        """Tell the caller how far it is; each number once."""
        if self.spec.progress is not None and self.told != self.total:
            self.told = self.total
            self.spec.progress(self.total, self.spec.size)

    def verify(self) -> None:
        """Check size, digests and verifier, in this order; all bytes have been seen."""
        size = self.spec.size
        if size is not None and self.total != size:
            raise SizeMismatch(expected=size, got=self.total)
        if self.spec.expected:
            got = {name: self.hashes[name].hexdigest() for name in self.spec.expected}
            compare(got, self.spec.expected)
        finish = getattr(self.spec.verifier, "verify", None)
        if callable(finish):
            finish()
        self.tell()

    def request(self, call: Callable[[], Any], name: str) -> Any:
        """Make one request of the writer, repeated after temporary errors.

        None is begun once the transfer has failed: one that hung and comes back goes no further.
        """
        checkpoint()
        if self.failure.error is not None:
            raise Stopped()
        return self.retry.call(call, name, stop=self.failure.event, on_repeat=self._count_repeat)

    def clean_up_again(self) -> None:
        """After a request that came back too late: what it made was not there to be removed."""
        if not self.abandoned:
            return
        try:
            self.retry.beyond().call(self.writer.abort, "cleaning up")
        except Exception as trouble:
            LOG.warning("Cleaning up after a request that was given up failed: %s", trouble)

    def _count_repeat(self) -> None:
        self.meter.count(retries=1)

    def publish(self, call: Callable[[], Location], *, repeatable: bool = True) -> Location:
        """Make the request that publishes; after a lost reply, find out whether it did."""
        retry = self.retry
        self._publishing = True
        self._location = (retry if repeatable else retry.once()).call(
            call,
            "publishing",
            stop=self.failure.event,
            on_repeat=self._count_repeat,
            rescue=functools.partial(self._stored_after_all, retry.now()),
        )
        return self._location

    def published(self, error: BaseException) -> Location | None:
        """Return where the object lies after an upload that raises, if it was published.

        An interrupt may have come between its publishing and the news of it.
        """
        if self._location is None and self._publishing and not isinstance(error, StoreError):
            try:
                resolve = functools.partial(self.spec.guard.call, self.writer.resolve)
                retry = self.retry.beyond()
                self._location = retry.call(resolve, "looking at what is stored")
            except StoreError as trouble:
                error.add_note(f"Whether it was stored all the same is not known: {trouble}")
        return self._location

    def _stored_after_all(self, began: float, error: StoreError) -> Location | None:
        """After a failed publishing request: return where the upload lies, if it does.

        :param began: when publishing did; looking has no more time than that
        """
        open_question = is_temporary(error) or isinstance(error, Duplicate)
        if not open_question or self.failure.error is not None:
            return None
        return self._resolve(began, error)

    def _resolve(self, began: float, error: StoreError) -> Location | None:
        try:
            found = self.retry.since(began).call(
                functools.partial(self.spec.guard.call, self.writer.resolve),
                "looking at what is stored",
                stop=self.failure.event,
                on_repeat=self._count_repeat,
            )
        except Exception as trouble:
            error.add_note(f"Whether it was stored all the same is not known: {trouble}")
            return None
        return found

    def commit(self, call: Callable[[], Location]) -> Location:
        """Publish from the caller's thread; what is published too late is taken back."""
        began = time.perf_counter()
        try:
            return self.publish(
                functools.partial(
                    self.spec.guard.call, call, on_late_result=lambda _: self.writer.abort()
                )
            )
        finally:
            self.meter.store += time.perf_counter() - began

    def copy(self, location: Location) -> Location:
        """Have the writer copy from ``location`` and publish; what comes too late is taken back.

        The call has the time to the transfer's deadline, as long as its checkpoints come in time.
        """
        began = self.retry.now()
        writer: Any = self.writer
        call = functools.partial(writer.copy_from, location)
        self._publishing = True
        try:
            self._location = self.spec.guard.call(
                call, on_late_result=lambda _: self.writer.abort(), watch=self.watch
            )
        except StoreError as error:
            self.watch.progress()  # a server that answers; a copy may take as long as it likes
            self._location = self._stored_after_all(began, error)
            if self._location is None:
                raise
        return self._location

    # The short way: no thread.

    def _run_small(self) -> Location:
        size = self.spec.size
        assert size is not None
        with self.spec.budget.reserve(size + 1 + self._beside, self.watch):
            buffer = Buffer(size + 1)
            self.read(buffer, size + 1)  # one byte too many is too many; fewer is the end
            return self._publish_small(buffer.data)

    def _publish_small(self, data: memoryview | bytes) -> Location:
        """Digest, verify and store what lies in memory whole."""
        began = time.perf_counter()
        for digest in self.hashes.values():
            digest.update(data)
        if self.spec.verifier is not None:
            self.spec.verifier.update(data)
        self.digest_seconds = time.perf_counter() - began
        self.verify()
        writer = self.writer
        if isinstance(writer, PartWriter):
            self.meter.count(parts=1)
            body = MemoryBody([data], self.watch)
            return self.commit(functools.partial(send_once, writer, body))
        if len(data):
            began = time.perf_counter()
            if writer.reserved < len(data):
                self.reserve(writer, len(data))
            self.spec.guard.call(functools.partial(self.write, writer, 0, data))
            self.meter.store += time.perf_counter() - began
        return self.commit(functools.partial(writer.commit, len(data)))

    def reserve(self, writer: PositionWriter, end: int) -> int:
        """Ask for room up to ``end``, from the caller's thread; return up to where there is."""
        self.failure.check()
        call = functools.partial(self.spec.guard.call, functools.partial(writer.reserve, end))
        room: int = self.request(call, f"making room up to {end}")
        return room

    def write(self, writer: PositionWriter, offset: int, data: memoryview | bytes) -> None:
        """Write a chunk, leaving out its holes."""
        if not writer.hole_size:
            self.request(functools.partial(writer.write_at, offset, data), f"writing at {offset}")
            self.meter.count(parts=1)
            return
        for start, length, is_hole in runs(data, writer.hole_size):
            if is_hole:
                self.request(
                    functools.partial(writer.zero, offset + start, length),
                    f"making a hole at {offset + start}",
                )
                self.meter.count(holes=length)
            else:
                piece = memoryview(data)[start : start + length]
                self.request(
                    functools.partial(writer.write_at, offset + start, piece),
                    f"writing at {offset + start}",
                )
                self.meter.count(parts=1)

    def _run_head(self) -> Location | None:
        """While memory is short, see whether the source ends within a few bytes.

        A small object of unknown size is to wait no longer than one whose size is known.  Where
        it is not small, ``None`` is returned, and the source gives its bytes again.  They are not
        counted until then, since whoever waits for memory is to hold none that others wait for.
        """
        most = min(_HEAD, self.writer.chunk_size)
        with self.spec.budget.reserve(most + self._beside, self.watch):
            buffer = Buffer(most)
            if self.read(buffer, most):
                return self._publish_small(buffer.data)
            self.source.put_back(bytes(buffer.data))
            self.total = self.watch.done = 0
            return None

    # The window: digests and writer at work while the source is read.

    def _run_window(self, way: PositionSink | PartSink) -> Location:
        chunk_size = self.writer.chunk_size
        self.failure.event = threading.Event()
        least = way.min_buffers()
        memory = least * chunk_size + self._beside
        if self.spec.size is None and not self.spec.budget.available(memory):
            location = self._run_head()
            if location is not None:
                return location
        with self.spec.budget.reserve(memory, self.watch) as reservation:
            pool = BufferPool(
                chunk_size,
                reservation,
                minimum=least,
                maximum=way.max_buffers(),
                watch=self.watch,
                failure=self.failure,
                meter=self.meter,
            )
            try:
                return self._run_pool(way, pool)
            finally:
                pool.close()

    def _run_pool(self, way: PositionSink | PartSink, pool: BufferPool) -> Location:
        chunk_size = self.writer.chunk_size
        buffer = pool.take()
        end = self.read(buffer, min(chunk_size, way.room()))
        if end:
            return self._publish_small(buffer.data)
        workers = WorkerPool("store", self.writer.concurrency, self.failure, pool)
        team = Team(way, workers, self.failure)
        patience = self.watch.limits.stall or None
        try:
            workers.start()
            for name, use in self._uses():
                team.lanes.append(ChunkWorker(name, use, self.failure, pool))
                team.lanes[-1].start()
            way.begin(pool, workers)
            while True:
                buffer.retain(len(team.lanes) + 1)
                for lane in team.lanes:
                    lane.put(buffer)
                way.put(buffer)
                self.tell()
                if end:
                    break
                buffer = pool.take()
                end = self.read(buffer, min(chunk_size, way.room()))
                if end and not len(buffer.data):
                    break
            return self._finish(way, team)
        except BaseException as error:
            if isinstance(error, Stopped):
                self.failure.check()  # the error because of which a request was not begun
            self.failure.set(Stopped())
            if isinstance(error, TimeoutError):
                patience = GRACE
            raise
        finally:
            self._stop(team, patience)

    def _uses(self) -> list[tuple[str, Callable[[memoryview | bytes], object]]]:
        """Return what is to see every chunk in order, each in a thread of its own."""
        uses = [(name, digest.update) for name, digest in self.hashes.items()]
        if self.spec.verifier is not None:
            uses.append(("verifier", self.spec.verifier.update))
        return uses

    def _finish(self, way: PositionSink | PartSink, team: Team) -> Location:
        way.end()
        workers = team.workers
        for lane in team.lanes:
            lane.finish()
        for lane in team.lanes:
            while not lane.join(self.watch.remaining()):
                self.watch.check()
        if not way.single_request:
            workers.drain()
        self.failure.check()
        self.verify()
        way.release_last()
        workers.drain()
        return way.commit()

    def _stop(self, team: Team, patience: float | None) -> None:
        """End the threads; wait for running writes, but not for ever for stuck ones."""
        team.finish()
        if not team.join(patience):
            self.abandoned = True
            LOG.warning("A call to the storage still hangs after its transfer was given up.")
        self.meter.store += team.workers.busy
        self.digest_seconds = max((lane.busy for lane in team.lanes), default=0.0)
