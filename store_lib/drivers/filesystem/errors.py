"""Translates the operating system's errors into the library's."""

import enum
import errno
import os

from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    InUseByStore,
    InvalidObjectId,
    StorageFull,
    StorageWriteDenied,
    StoreError,
    not_found,
)

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
#: Errors caused by limits of this process or machine, and not by the file system.
OWN_LIMITS = frozenset({errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
#: Errors of a file that cannot be an object: a directory, a socket, a device.
_NO_FILE = frozenset({errno.EISDIR, errno.ENXIO, errno.ENODEV})
_TEMPORARY = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


class Action(enum.Enum):
    """The driver's action during an error: on it depends what the error number means."""

    ADD = "write"
    READ = "read"
    DELETE = "delete"
    #: Anything about a data directory itself.
    LIST = "list"


def translate(
    error: OSError,
    action: Action,
    path: str,
    *,
    object_id: str | None = None,
    status: ErrorStatus | None = None,
) -> StoreError:
    """Return the library's error for an ``OSError``; the caller raises it from ``error``.

    :param path: the file or directory concerned
    :param status: overrides the status that follows from the error number
    """
    number = error.errno or 0
    cause = os.strerror(number) if number else str(error)
    text = f"Cannot {action.value} {path}: {cause}."
    if action is Action.ADD:
        if number in FULL:
            return StorageFull(
                f"{text} Free some space or raise the quota, or add to another store."
            )
        if number in DENIED:
            return StorageWriteDenied(
                f"{text} Give the service's user write permission on the directory, and check "
                "that it is not mounted read-only."
            )
        if number == errno.ENAMETOOLONG:
            return InvalidObjectId(
                object_id_repr=ascii(object_id),
                reason=f"the file system under {os.path.dirname(path)} says that the name is too "
                "long. Use a shorter one.",
            )
    elif number in DENIED:
        return Forbidden(
            f"{text} Give the service's user permission on it and on the directory that holds it."
        )
    if action in (Action.READ, Action.DELETE):
        if number in _ABSENT or number in _NO_FILE or number == errno.ENAMETOOLONG:
            return not_found(path)
        if number == errno.ELOOP:
            return symbolic_link(path)
        if action is Action.DELETE and number == errno.EBUSY:
            return InUseByStore(f"{text} Something else uses it; delete it once that has ended.")
    elif number in _ABSENT:
        text += " Check that the data directory is there and mounted."
    if status is None and number in _TEMPORARY:
        status = ErrorStatus.TEMPORARY
    return BackendException(f"{text} Check the disk or mount.", status=status)


class translated:
    """Context manager that translates every ``OSError`` of its block.

    The parameters are those of :func:`translate`.  What every small object needs has a plain
    ``except`` clause in its place, which costs nothing.
    """

    __slots__ = ("_action", "_object_id", "_path", "_status")

    def __init__(
        self,
        action: Action,
        path: str,
        *,
        object_id: str | None = None,
        status: ErrorStatus | None = None,
    ) -> None:
        self._action = action
        self._path = path
        self._object_id = object_id
        self._status = status

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise translate(
                error, self._action, self._path, object_id=self._object_id, status=self._status
            ) from error


def symbolic_link(path: str) -> Forbidden:
    """Return the error for a path whose last component is a symbolic link."""
    return Forbidden(
        f"{path} is a symbolic link, which the store never follows. Put the file itself there."
    )
