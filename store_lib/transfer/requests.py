"""The requests that an upload makes through its writer, with retries and time limits."""

import functools
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from store_lib.display import get_logger
from store_lib.driver import Writer
from store_lib.exceptions import Duplicate, StoreError, TimeoutError
from store_lib.location import Location
from store_lib.transfer import timeouts
from store_lib.transfer.buffers import Failure, Stopped
from store_lib.transfer.report import Meter
from store_lib.transfer.retry import Retry, is_temporary
from store_lib.transfer.timeouts import HangGuard, TransferClock, checkpoint

LOG = get_logger(__name__)
R = TypeVar("R")
W = TypeVar("W", bound=Writer)


class Requests:
    """The requests of one upload.

    If the response to the publishing request is lost, the writer's ``resolve`` checks whether the
    object was stored.  After any error, :meth:`roll_back` removes what the writer has stored.
    """

    def __init__(self, retry: Retry, guard: HangGuard, clock: TransferClock, meter: Meter) -> None:
        self.guard = guard
        self.clock = clock
        self.meter = meter
        #: The first error of the upload, after which no further request is begun.
        self.failure = Failure()
        self._retry = retry
        #: The writer to abort; ``None`` until it is created.
        self._writer: Writer | None = None
        #: Whether the request that publishes has begun.
        self._publishing = False
        #: The object's location, once it is published.
        self._location: Location | None = None

    def create(self, create: Callable[[], W]) -> W:
        """Create the writer."""
        call = functools.partial(self.guard.call, create, on_late_result=_abort_late)
        writer = self._writer = self._retry.call(call, "beginning")
        return writer

    def send(self, call: Callable[[], R], name: str, *, repeatable: bool = True) -> R:
        """Make a request; repeat it after a temporary error if it is ``repeatable``.

        After the upload has failed, no request is made.
        """
        checkpoint()
        if self.failure.error is not None:
            raise Stopped()
        retry = self._retry if repeatable else self._retry.once()
        return retry.call(call, name, stop=self.failure.event, on_retry=self.count_retry)

    def commit(self, call: Callable[[], Location], *, streamed: bool = False) -> Location:
        """Make the request that publishes the object: the writer's ``commit`` or ``write_once``.

        The caller's thread makes the request, and gives it up if it hangs.  If the object is
        published after that, the writer is aborted again.

        :param streamed: whether a worker thread makes the request, which cannot be repeated then
        :returns: the object\'s location
        """
        retry, writer, began = self._retry, self._writer, time.perf_counter()
        assert writer is not None
        if streamed:
            retry = retry.once()
        else:
            abort = functools.partial(_abort_late, writer)
            call = functools.partial(self.guard.call, call, on_late_result=abort)
        self._publishing = True
        try:
            self._location = retry.call(
                call,
                "publishing",
                stop=self.failure.event,
                on_retry=self.count_retry,
                rescue=functools.partial(self._resolve, retry.now()),
            )
        finally:
            if not streamed:  # a worker thread counts its own time
                self.meter.store += time.perf_counter() - began
        return self._location

    def copy(self, writer: Writer, location: Location) -> Location:
        """Have the writer copy the object at ``location`` and publish the copy.

        The copy may take until the transfer's deadline, as long as each of its checkpoints comes in
        time.  A writer can copy only once; after a failure it is aborted.
        """
        self._publishing = True
        try:
            self._location = self.guard.call(
                functools.partial(self._copy, writer, location),
                on_late_result=functools.partial(_abort_late, writer),
                clock=self.clock,
            )
        except StoreError as error:
            self._location = self._resolve(self._retry.now(), error)
            if self._location is None:
                self._abort(error)
                self._publishing, self._writer = False, None
                raise
        return self._location

    def _copy(self, writer: Writer, location: Location) -> Location:
        try:
            return writer.copy_from(location)
        finally:
            self.clock.progress()  # the stall limit does not apply to the time of the copy itself

    def roll_back(
        self, error: BaseException, withdraw: Callable[[Location, BaseException], None]
    ) -> None:
        """Remove what the upload has stored, after it has failed with ``error``.

        :param withdraw: deletes the object if it was published
        """
        location = self._published(error)
        if location is not None:
            withdraw(location, error)
        elif self._writer is not None:
            self._abort(error)

    def clean_up_late(self) -> None:
        """Abort the writer again, after a request has returned that had been given up.

        What this request has stored may not have existed yet when the writer was first aborted.
        """
        if not self.failure.abandoned or self._writer is None:
            return
        try:
            self._retry.without_limits().call(self._writer.abort, "cleaning up")
        except Exception as trouble:
            LOG.warning("Cleaning up after a request that was given up failed: %s", trouble)

    def count_retry(self) -> None:
        """Count a repeat."""
        self.meter.count(retries=1)

    def _resolve(self, began: float, error: StoreError) -> Location | None:
        """Return the object's location if it was stored although publishing it failed.

        :param began: when publishing began; resolving gets what is left of its retry time
        """
        is_open = is_temporary(error) or isinstance(error, Duplicate)
        if not is_open or self.failure.error is not None:
            return None
        try:
            return self._ask_writer(self._retry.since(began), self.failure.event)
        except Exception as trouble:
            error.add_note(f"Whether it was stored all the same is not known: {trouble}")
            return None

    def _published(self, error: BaseException) -> Location | None:
        """Return the object's location if it was published although the upload raises.

        An interrupt may have ended the request after the object was published.
        """
        if self._location is None and self._publishing and not isinstance(error, StoreError):
            try:
                self._location = self._ask_writer(self._retry.without_limits())
            except StoreError as trouble:
                error.add_note(f"Whether it was stored all the same is not known: {trouble}")
        return self._location

    def _ask_writer(self, retry: Retry, stop: threading.Event | None = None) -> Location | None:
        assert self._writer is not None
        resolve = functools.partial(self.guard.call, self._writer.resolve)
        request = "looking at what is stored"
        return retry.call(resolve, request, stop=stop, on_retry=self.count_retry)

    def _abort(self, error: BaseException) -> None:
        assert self._writer is not None
        timeout = self.guard.timeout
        if isinstance(error, TimeoutError):  # a further request would hang again
            timeout = min(timeout, timeouts.GRACE)
        abort = functools.partial(self.guard.call, self._writer.abort, timeout=timeout)
        try:
            self._retry.without_limits().call(abort, "cleaning up")
        except Exception as trouble:
            LOG.warning("Cleaning up after a failed upload failed: %s", trouble)
            error.add_note(
                f"Cleaning up failed too ({type(trouble).__name__}: {trouble}); what is left can "
                "be listed and swept as an incomplete upload."
            )


def _abort_late(writer: Writer, _: object = None) -> None:
    """Abort a writer, after a call has returned that had been given up."""
    writer.abort()
