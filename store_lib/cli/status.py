"""The exit statuses of ``store-lib`` and the errors that lead to them."""

import enum

from store_lib import exceptions
from store_lib.exceptions import ErrorStatus, StoreError


class ExitStatus(enum.IntEnum):
    """The exit status of a command; 128 plus the signal's number if a signal ended it."""

    #: Success.
    OK = 0
    #: Any other error, such as a local file that cannot be written.
    ERROR = 1
    #: The command line, the file to add, a URI, an id or a range is not usable.
    USAGE = 2
    #: The object does not exist.
    NOT_FOUND = 3
    #: An object with this id already exists.
    DUPLICATE = 4
    #: The configuration is wrong or lacks the store.
    CONFIGURATION = 5
    #: The store denied permission.
    DENIED = 6
    #: The store is full.
    FULL = 7
    #: The data does not have the expected size or digest.
    MISMATCH = 8
    #: The store is unreachable or too slow, or the object changed meanwhile: try again later.
    UNAVAILABLE = 9
    #: The store does not support the operation.
    UNSUPPORTED = 10
    #: Interrupted by Ctrl-C.
    INTERRUPTED = 130
    #: The reader of the output closed it.
    BROKEN_PIPE = 141


#: The statuses by class of error; the first matching class decides.
_STATUSES: tuple[tuple[type[StoreError], ExitStatus], ...] = (
    (exceptions.NotFound, ExitStatus.NOT_FOUND),
    (exceptions.Duplicate, ExitStatus.DUPLICATE),
    (exceptions.BadStoreConfiguration, ExitStatus.CONFIGURATION),
    (exceptions.UnknownScheme, ExitStatus.CONFIGURATION),
    (exceptions.Forbidden, ExitStatus.DENIED),
    (exceptions.StorageWriteDenied, ExitStatus.DENIED),
    (exceptions.StorageFull, ExitStatus.FULL),
    (exceptions.SizeMismatch, ExitStatus.MISMATCH),
    (exceptions.DigestMismatch, ExitStatus.MISMATCH),
    (exceptions.Invalid, ExitStatus.USAGE),
    (exceptions.BadStoreUri, ExitStatus.USAGE),
    (exceptions.ObjectChanged, ExitStatus.UNAVAILABLE),
    (exceptions.RemoteServiceUnavailable, ExitStatus.UNAVAILABLE),
    (exceptions.TimeoutError, ExitStatus.UNAVAILABLE),
    (exceptions.NotSupported, ExitStatus.UNSUPPORTED),
)


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the command; unfinished transfers are undone as it propagates.

    :param number: the signal's number
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status_of(error: BaseException) -> ExitStatus:
    """Return the exit status for an error."""
    if not isinstance(error, StoreError):
        return ExitStatus.ERROR
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if error.status is not ErrorStatus.PERMANENT:
        return ExitStatus.UNAVAILABLE
    return ExitStatus.ERROR
