"""What librados and librbd raise, as the library's errors."""

import contextlib
import errno
from collections.abc import Callable, Iterator

from store_lib.drivers.rbd import bindings
from store_lib.exceptions import (
    BackendException,
    Duplicate,
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
)

#: Errors after which a connection is of no more use: the cluster has shut this client out.
DEAD = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})


def number_of(error: BaseException) -> int | None:
    """Return the errno of an error of librados or librbd, where it has one."""
    number = getattr(error, "errno", None)
    return abs(number) if isinstance(number, int) else None


@contextlib.contextmanager
def translated(
    doing: str, image: str | None = None, *, notice: Callable[[int | None], object] | None = None
) -> Iterator[None]:
    """Turn what Ceph's modules raise in a ``with`` block into the library's errors.

    :param doing: what is being done, for the message: ``"write to"``
    :param image: the image it is done to
    :param notice: is told the errno first
    """
    try:
        yield
    except (bindings.rados.Error, bindings.rbd.Error) as error:
        number = number_of(error)
        if notice is not None:
            notice(number)
        raise translate(error, number, doing, image) from error


def translate(error: Exception, number: int | None, doing: str, image: str | None) -> StoreError:
    """Return the library's error for one of librados or librbd."""
    what = f"{doing} {image!a}" if image is not None else doing
    got = f"Expected to {what}, got: {error}."
    if number == errno.ENOENT:
        return NotFound(image=image) if image is not None else NotFound(got)
    if number == errno.EEXIST:
        return Duplicate(image=image)
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
    if number in DEAD:
        return RemoteServiceUnavailable(
            f"{got} The cluster has shut this client out (see `ceph osd blocklist ls`); a new "
            "connection is made.",
            status=ErrorStatus.TEMPORARY,
        )
    return BackendException(got)
