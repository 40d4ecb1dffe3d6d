"""The exit statuses of ``store-lib``, and which error ends in which."""

import enum

from store_lib import exceptions
from store_lib.exceptions import ErrorStatus, StoreError


class ExitStatus(enum.IntEnum):
    """What the exit status of a command says; 128 and the signal's number when one ended it."""

    #: Everything was done.
    OK = 0
    #: An error that none of the others names.
    ERROR = 1
    #: The command line, the file to add, a URI, an id or a range cannot be used as given.
    USAGE = 2
    #: There is no such object.
    NOT_FOUND = 3
    #: An object of this id is there already.
    DUPLICATE = 4
    #: The configuration is wrong, or has no such store.
    CONFIGURATION = 5
    #: Not permitted.
    DENIED = 6
    #: The store is full.
    FULL = 7
    #: The data does not have the expected size or digest.
    MISMATCH = 8
    #: The store is out of reach or too slow, or an object changed: trying later may help.
    UNAVAILABLE = 9
    #: The store cannot do this.
    UNSUPPORTED = 10
    #: Ended by Ctrl-C.
    INTERRUPTED = 130
    #: The reader of the output went away.
    BROKEN_PIPE = 141


#: The first class that fits decides.
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


def status_of(error: BaseException) -> ExitStatus:
    """Return the exit status that an error ends the command with."""
    if not isinstance(error, StoreError):
        return ExitStatus.ERROR
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    if error.status is not ErrorStatus.PERMANENT:
        return ExitStatus.UNAVAILABLE
    return ExitStatus.ERROR
