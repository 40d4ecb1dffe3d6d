"""Translation of the errors of librados and librbd."""

import contextlib
import errno
from collections.abc import Callable, Iterator

from store_lib.drivers.rbd import bindings
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreError,
    TimeoutError,
    duplicate,
    not_found,
)

#: Errors of a client that the cluster has shut out; its connection is useless.
SHUT_OUT = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})


def errno_of(error: BaseException) -> int | None:
    """Return the errno of an error of librados or librbd, or ``None`` if it has none."""
    number = getattr(error, "errno", None)
    return abs(number) if isinstance(number, int) else None


@contextlib.contextmanager
def translated(
    action: str, image: str | None = None, *, on_error: Callable[[int | None], object] | None = None
) -> Iterator[None]:
    """Translate the errors that Ceph's modules raise in a ``with`` block.

    :param action: completes "Expected to ..." in the message: ``"write to"``
    :param image: name of the image concerned
    :param on_error: called first, with the errno
    """
    try:
        yield
    except (bindings.rados.Error, bindings.rbd.Error) as error:
        number = errno_of(error)
        if on_error is not None:
            on_error(number)
        raise translate(error, number, action, image) from error


def translate(error: Exception, number: int | None, action: str, image: str | None) -> StoreError:
    """Return the library's error for one of librados or librbd."""
    what = f"{action} {image!a}" if image is not None else action
    got = f"Expected to {what}, got: {error}."
    if number == errno.ENOENT:
        return not_found(image) if image is not None else NotFound(got)
    if number == errno.EEXIST:
        return duplicate(image)
    if number in (errno.EPERM, errno.EACCES):
        return Forbidden(
            f"{got} The Ceph user needs the capabilities 'profile rbd' of the monitors and "
            "'profile rbd pool=...' of the OSDs."
        )
    if number == errno.EBUSY:
        return InUseByStore(f"{got} Something has the image open.", status=ErrorStatus.TEMPORARY)
    if number == errno.ENOTEMPTY:
        return HasSnapshot(f"{got} Remove its snapshots first.")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{got} The pool or the cluster is full, or over its quota.")
    if number == errno.EROFS:
        return StorageWriteDenied(f"{got} Another client holds the image's lock.")
    if number == errno.ETIMEDOUT:
        return TimeoutError(
            f"{got} An OSD or a monitor did not answer in time. Check the cluster's health."
        )
    if number in SHUT_OUT:
        return RemoteServiceUnavailable(
            f"{got} The cluster has shut this client out (see `ceph osd blocklist ls`); a new "
            "connection is made.",
            status=ErrorStatus.TEMPORARY,
        )
    return BackendException(got)
