"""The errors of the library.  Messages state what was expected, what was received, and what to do.

::

    StoreError
     |-- BackendException               the backend failed in a way no other class names
     |    `-- UnsupportedBackend
     |-- Invalid                        an argument or the data is wrong
     |    |-- SizeMismatch              the source did not have the declared number of bytes
     |    |-- DigestMismatch            the bytes do not have the expected digest
     |    |-- InvalidObjectId           an id that this store cannot hold
     |    |-- InvalidRange              offset or length outside the object
     |    |-- LengthRequired            a request whose end cannot be known
     |    `-- UnknownHashingAlgo
     |-- NotFound
     |-- Duplicate                      an object with this id already exists
     |-- ObjectChanged                  the object was replaced while it was being read
     |-- BadStoreUri
     |-- UnknownScheme
     |    `-- UnknownStore              no store with this id is configured
     |-- BadStoreConfiguration
     |    `-- DriverLoadFailure
     |-- Forbidden
     |    |-- NotAuthenticated
     |    |-- AuthorizationFailure
     |    `-- MissingCredentialError
     |-- StorageFull
     |-- StorageWriteDenied
     |-- InUseByStore
     |-- HasSnapshot
     |-- RemoteServiceUnavailable
     |    `-- MaxRedirectsExceeded
     |-- TimeoutError                   (not the built-in of that name)
     |    |-- TransferStalled           no byte moved for too long
     |    `-- DeadlineExceeded          the whole transfer took too long
     |-- StoreClosed
     `-- NotSupported                   this store cannot do that
          |-- StoreAddDisabled
          |-- StoreDeleteNotSupported
          `-- StoreGetNotSupported
               `-- StoreRandomGetNotSupported

Classes that glance_store has too have the same name and form: the class attribute ``message`` is a
template, keyword arguments fill it, and the instance attribute ``msg`` is the finished text.  Only
``status`` shows whether a repeated call may succeed.
"""

import contextlib
import enum
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from store_lib.display import printable
from store_lib.redaction import redact_uri


class ErrorStatus(enum.Enum):
    """Whether the same call may succeed if it is repeated."""

    #: Repeating the call gives the same result.
    PERMANENT = "permanent"
    #: Repeating the call may succeed: a lost connection, a busy server.
    TEMPORARY = "temporary"
    #: A temporary error that was retried as often as allowed: outer loops should not retry it.
    EXHAUSTED = "exhausted"


class _Blanks(dict[str, Any]):
    """The values for a template; a missing value becomes "unknown" instead of raising."""

    def __missing__(self, key: str) -> str:
        return "(unknown)"


class StoreError(Exception):
    """The root of every error that the library raises on purpose.

    :param message: the text or a template; by default, the class's template.  Keyword arguments
        fill it.
    :param store: id of the store concerned, if known
    :param operation: the operation that failed: ``add``, ``get``, ``stat``, ``delete``, ...
    :param object_id: the caller's name for the object, if known
    :param status: overrides the class's :attr:`default_status`
    :param retry_after: seconds after which the server allows the next try; ``None`` if it did not
        specify any

    A keyword named ``uri`` is redacted, so that no credential gets into a message.  The text and
    the notes are printable and have one line, whatever names are in them.
    """

    message: ClassVar[str] = "An unknown exception occurred"
    default_status: ClassVar[ErrorStatus] = ErrorStatus.PERMANENT

    def __init__(
        self,
        message: object = None,
        *,
        store: str | None = None,
        operation: str | None = None,
        object_id: str | None = None,
        status: ErrorStatus | None = None,
        retry_after: float | None = None,
        **kwargs: Any,
    ) -> None:
        if "uri" in kwargs:
            kwargs["uri"] = redact_uri(str(kwargs["uri"]))
        template = self.message if message is None else str(message)
        if message is None or kwargs:
            # A finished text may contain a percent sign; it then stays as it is.
            with contextlib.suppress(TypeError, ValueError, KeyError):
                template = template % _Blanks(kwargs)
        self.msg = printable(template)
        self.store = store
        self.operation = operation
        self.object_id = object_id
        self.status = status or self.default_status
        self.retry_after = retry_after
        super().__init__(self.msg)

    def __str__(self) -> str:
        return self.msg

    def add_note(self, note: str, /) -> None:
        """Add a note to the error."""
        super().add_note(printable(note))

    def annotate(
        self,
        *,
        store: str | None = None,
        operation: str | None = None,
        object_id: str | None = None,
    ) -> Self:
        """Set store, operation and object id unless they are set already."""
        self.store = self.store or store
        self.operation = self.operation or operation
        self.object_id = self.object_id or object_id
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.msg, dict(self.__dict__))


def _restore(cls: type[StoreError], text: str, state: Mapping[str, Any]) -> StoreError:
    error = cls.__new__(cls, text)
    error.args = (text,)
    error.__dict__.update(state)
    return error


class BackendException(StoreError):
    """The backend failed in a way that no other class names."""

    message = "The storage backend failed."


class UnsupportedBackend(BackendException):
    """The library does not support the backend."""

    message = "The storage backend is not supported."


class Invalid(StoreError):
    """An argument or the data cannot be used."""

    message = "Data supplied was not valid."


class SizeMismatch(Invalid):
    """The source had more or fewer bytes than were declared; nothing was stored."""

    message = (
        "Expected %(expected)s bytes, got %(got)s. Nothing was stored; declare the true size, "
        "or none."
    )


class DigestMismatch(Invalid):
    """The bytes do not have the digest that the caller expected."""

    message = (
        "Expected %(algorithm)s %(expected)s, got %(got)s. Check the source, or the expected "
        "digest."
    )


class InvalidObjectId(Invalid):
    """This store cannot hold an object with this id; nothing was sent."""

    message = "The object id %(object_id_repr)s cannot be used: %(reason)s"


class InvalidRange(Invalid):
    """The offset or the length is outside the object."""

    message = "Expected a range within %(size)s bytes, got offset %(offset)s, length %(length)s."


class LengthRequired(Invalid):
    """The end of an upload request's body cannot be known; answer the request with 411."""

    message = "Expected a request with Content-Length, got one without. Send the length."


class UnknownHashingAlgo(Invalid):
    """Python's hashlib has no usable digest of this name."""

    message = "Unknown hashing algorithm identifier: %(algo)s"


class NotFound(StoreError):
    """There is no such object."""

    message = "Object %(image)s not found"


def not_found(what: object, answer: str = "") -> NotFound:
    """Return the error for a missing object; every driver's has this text.

    :param what: the object's id or location
    :param answer: the backend's message, if that helps
    """
    return NotFound(_with_answer(NotFound.message, answer), image=what, answer=answer)


def _with_answer(template: str, answer: str) -> str:
    return f"{template} (%(answer)s)" if answer else template


class Duplicate(StoreError):
    """An object of this id exists, or is being added right now; it was not touched."""

    message = "Object %(image)s already exists"


def duplicate(what: object, answer: str = "") -> Duplicate:
    """Return the error for an object that exists already; every driver's has this text.

    :param what: the object's id or location
    :param answer: further information, such as the object's place
    """
    return Duplicate(_with_answer(Duplicate.message, answer), image=what, answer=answer)


def being_added(
    what: object, answer: str = "", *, status: ErrorStatus = ErrorStatus.PERMANENT
) -> Duplicate:
    """Return the error for an object that another add is about to store.

    :param what: the object's id
    :param answer: further information, such as how long this can last
    """
    template = "Object %(image)s is being added right now, by this or another process"
    return Duplicate(_with_answer(template, answer), image=what, answer=answer, status=status)


class ObjectChanged(StoreError):
    """The object was replaced or altered while it was being read; read it again."""

    message = "The object changed while it was being read. Read it again from the start."


class BadStoreUri(StoreError):
    """The location URI is malformed, or does not belong to this store."""

    message = "The store URI was malformed: %(uri)s"


class UnknownScheme(StoreError):
    """No configured store has URIs of this scheme."""

    message = "Unknown scheme '%(scheme)s' found in URI"


class UnknownStore(UnknownScheme):
    """No store of this id is configured."""

    message = "Store %(store_id)s is not configured; configured are: %(known)s"


class BadStoreConfiguration(StoreError):
    """A store's options are invalid, or refer to something that cannot be used.

    :param readable: whether objects that are already in the store can still be read
    """

    message = "Store %(store_name)s could not be configured correctly. Reason: %(reason)s"

    def __init__(self, message: object = None, *, readable: bool = False, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.readable = readable


class DriverLoadFailure(BadStoreConfiguration):
    """A driver, or a package that it needs, is not installed."""

    message = "Driver %(driver_name)s could not be loaded. Reason: %(reason)s"


class Forbidden(StoreError):
    """The credentials in use do not permit this."""

    message = "You are not authorized to complete this action."


class NotAuthenticated(Forbidden):
    """The backend requires a login, or the login has expired."""

    message = "You are not authenticated."


class AuthorizationFailure(Forbidden):
    """The login failed."""

    message = "Authorization failed."


class MissingCredentialError(Forbidden):
    """A credential that the login needs is not configured."""

    message = "Missing required credential: %(required)s"


class StorageFull(StoreError):
    """The store has no room for the object, or the quota is used up; nothing was stored."""

    message = "There is not enough disk space on the image storage media."


class StorageWriteDenied(StoreError):
    """The store's medium is read-only, or writing to it is not permitted."""

    message = "Permission to write image storage media denied."


class InUseByStore(StoreError):
    """The object is in use by another consumer of the backend and was not deleted."""

    message = (
        "The image cannot be deleted because it is in use through the backend store outside of "
        "this service."
    )


class HasSnapshot(StoreError):
    """The object has snapshots and was not deleted."""

    message = "The image cannot be deleted because it has snapshot(s)."


class RemoteServiceUnavailable(StoreError):
    """The server did not respond, or responded that it is unavailable for now."""

    message = "Remote server where the image is present is unavailable."
    default_status = ErrorStatus.TEMPORARY


class MaxRedirectsExceeded(RemoteServiceUnavailable):
    """The server redirected more often than the limit allows."""

    message = "Maximum redirects (%(redirects)s) was exceeded."
    default_status = ErrorStatus.PERMANENT


class TimeoutError(StoreError):
    """A time limit was exceeded.  As in glance_store, this is not the built-in of this name."""

    message = "Operation timed out after %(timeout)ss. Check storage health and connectivity."
    default_status = ErrorStatus.EXHAUSTED


class TransferStalled(TimeoutError):
    """No byte moved for as long as the stall limit allows."""

    message = (
        "No progress for %(timeout)s s (transfer_stall_timeout), after %(done)s bytes. Check the "
        "storage's health and the network to it."
    )


class DeadlineExceeded(TimeoutError):
    """The whole transfer took longer than its deadline allows."""

    message = (
        "Not finished within %(timeout)s s (transfer_deadline), after %(done)s bytes. Check what "
        "held it back, or raise the limit."
    )


class StoreClosed(StoreError):
    """The stores were closed; make a new ``Stores``."""

    message = "The stores are closed. Make a new Stores object."


class NotSupported(StoreError):
    """This store does not support the operation."""

    message = "Store %(store_id)s cannot do this: %(what)s"


class StoreAddDisabled(NotSupported):
    """Adding is not possible: the store is read-only or its configuration failed."""

    message = "Configuration for store failed. Adding images to this store is disabled."


class StoreDeleteNotSupported(NotSupported):
    """Deleting is not possible in this store."""

    message = "Deleting images from this store is not supported."


class StoreGetNotSupported(NotSupported):
    """Reading is not possible from this store."""

    message = "Getting images from this store is not supported."


class StoreRandomGetNotSupported(StoreGetNotSupported):
    """Reading a range is not possible from this store."""

    message = (
        "Getting images randomly from this store is not supported. Offset: %(offset)s, length: "
        "%(chunk_size)s"
    )
