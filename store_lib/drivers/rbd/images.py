"""The images of a pool: their states, how a name is claimed, and how an image is removed.

An image is in one of four states:

* *object*: it has the snapshot ``snap``.
* *unfinished upload*: it has no snapshot, and its mark (see :class:`Mark`) says ``adding``, or it
  holds nothing at all, since an image is created empty and marked before anything else.
* *unfinished deletion*: it has no snapshot, and its mark says ``deleting``.
* *foreign*: anything else.  Such an image is never taken over, and deleted only as an object is.
  It may be a volume cloned from an object, or an object whose snapshot or metadata other software
  has changed.

A snapshot whose creation was interrupted is listed but cannot be opened, because its object map is
missing.  It counts as absent.  A protected snapshot was created completely.

The creator of an image holds its exclusive lock until the object is published.  An unfinished image
without watchers is removed or taken over only under that lock.  Taking it shuts out a dead owner
that comes back to life.
"""

import contextlib
import dataclasses
import datetime
import enum
from collections.abc import Callable
from typing import Any, Self

from store_lib.driver import Repeater
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.client import Cluster
from store_lib.exceptions import (
    Duplicate,
    ErrorStatus,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    NotFound,
    NotSupported,
    StorageFull,
    being_added,
    duplicate,
    not_found,
)

#: The snapshot that makes an image an object; Nova and Cinder clone from it.
SNAPSHOT = "snap"

#: The metadata key of the mark.
_MARK_KEY = "store_lib.upload"

#: The nonce in the mark of an image that was not uploaded by this library.
_NO_NONCE = "-"

#: Attempts to claim a name that others claim and give up at the same time.
_CLAIM_ATTEMPTS = 5


class State(enum.StrEnum):
    """What this library has done with an image."""

    ADDING = "adding"
    STORED = "stored"
    DELETING = "deleting"


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A note of this library in an image's metadata.

    It contains the image's id, because clones and copies inherit metadata: there it is void.

    :param nonce: the nonce of the upload that created the image, or ``"-"`` in a deletion's mark on
        an image that had no mark before
    """

    state: State
    nonce: str

    @classmethod
    def of(cls, image: Any) -> Self | None:
        """Return an image's mark, or ``None`` if it has none or an inherited one."""
        try:
            state, nonce, image_id = image.metadata_get(_MARK_KEY).split()
            return cls(State(state), nonce) if image_id == image.id() else None
        except (KeyError, ValueError):
            return None

    def put(self, image: Any) -> None:
        """Write the mark to an image."""
        image.metadata_set(_MARK_KEY, f"{self.state} {self.nonce} {image.id()}")


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInfo:
    """The state of an image."""

    image_id: str
    #: Size in bytes of the object, or of the image if it is not an object.
    size: int
    #: Whether the image is an object.
    complete: bool
    #: ``None`` for an image that this library has not marked.
    mark: Mark | None
    #: Whether the image is an unfinished upload or deletion.
    unfinished: bool
    #: The number of clients that have the image open for writing.
    watchers: int
    #: Seconds since the epoch.
    modified: float

    @property
    def watched(self) -> bool:
        """Whether a client has it open for writing."""
        return self.watchers > 0

    @property
    def deleting(self) -> bool:
        """Whether it is an unfinished deletion."""
        return self.unfinished and self.mark is not None and self.mark.state is State.DELETING


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """An image that an upload has claimed: open and locked."""

    image: Any
    image_id: str
    name: str
    nonce: str
    #: The features it was created with; the lock's may have been added for a while.
    features: int

    def restore_features(self) -> None:
        """Remove the lock's feature if the cluster does not give it to new images."""
        lock = bindings.rbd.RBD_FEATURE_EXCLUSIVE_LOCK
        if self.image.features() & lock and not self.features & lock:
            self.image.update_features(lock, False)


@dataclasses.dataclass(frozen=True, slots=True)
class CloneSource:
    """A snapshot to be cloned."""

    ioctx: Any
    image: str
    snapshot: str
    #: Bytes of the snapshot.
    size: int

    def clone(self, ioctx: Any, name: str) -> None:
        """Create the image ``name`` as a clone; fails if the name is taken."""
        bindings.rbd.RBD().clone(self.ioctx, self.image, self.snapshot, ioctx, name)


class Images:
    """The images of one pool.

    :param retry: repeats a request after a temporary error
    """

    def __init__(self, cluster: Cluster, pool: str, retry: Repeater) -> None:
        self.cluster = cluster
        self._pool = pool
        self._retry = retry

    @property
    def ioctx(self) -> Any:
        """The open pool."""
        return self.cluster.pool(self._pool)

    def entries(self) -> list[tuple[str, str]]:
        """Return the name and id of every image.

        An image whose removal was interrupted may have the name of another one.
        """

        def request() -> list[tuple[str, str]]:
            with self.cluster.calling("list the images of a pool"):
                images = bindings.rbd.RBD().list2(self.ioctx)
                return [(image["name"], image["id"]) for image in images]

        return self._retry(request)

    def inspect(self, name: str, own: str = SNAPSHOT) -> ImageInfo | None:
        """Return the state of the image ``name``, or ``None`` if there is none.

        The image is opened read-only and so gets no watcher.

        :param own: the snapshot that makes the image an object
        """
        try:
            with (
                self.cluster.calling("inspect", name),
                bindings.opened(self.ioctx, name, read_only=True) as image,
            ):
                return self._inspect(image, name, own)
        except NotFound:
            return None

    def find(self, name: str, snapshot: str | None) -> ImageInfo:
        """Return the state of the image that a URI names.

        :param snapshot: the snapshot in the URI; ``None`` if the URI names none, and the image need
            not have one
        :raises NotFound: the image or its snapshot does not exist, or the image is unfinished
        """
        info = self.inspect(name, snapshot or SNAPSHOT)
        if info is None or info.unfinished or not (info.complete or snapshot is None):
            raise not_found(name)
        return info

    def clone_source(self, name: str, snapshot: str | None) -> CloneSource:
        """Return the snapshot to clone for a copy of the image that a URI names.

        :param snapshot: the snapshot in the URI; ``None`` if it names none
        :raises NotFound: there is no such image or snapshot
        :raises NotSupported: the image has no snapshot
        """
        info = self.find(name, snapshot)
        own = snapshot or SNAPSHOT
        if not info.complete:
            raise NotSupported(
                store_id=self.cluster.store_id,
                what=f"clone the image {name}: it has no snapshot {own!r}",
            )
        return CloneSource(self.ioctx, name, own, info.size)

    def inspect_half_removed(self, name: str, image_id: str) -> ImageInfo | None:
        """Return the state of an image that has lost its name, if this library was removing it.

        Ceph moves an image to its trash before it removes it.  There it stays if the process dies.
        """
        try:
            with (
                self.cluster.calling("inspect", name),
                bindings.opened(self.ioctx, None, image_id=image_id, read_only=True) as image,
            ):
                info = self._inspect(image, name)
        except NotFound:
            return None
        return info if info.mark is not None and info.unfinished else None

    def _inspect(self, image: Any, name: str, own: str = SNAPSHOT) -> ImageInfo:
        size = image.size()  # refreshes the image; everything else is read from that state
        modified = max(image.create_timestamp(), image.modify_timestamp())
        snapshot = find_snapshot(image, own)
        complete = snapshot is not None and (image.is_protected_snap(own) or self._opens(name, own))
        mark = Mark.of(image)
        unfinished = not complete and not other_snapshots(image, own)
        if unfinished:
            unfinished = is_empty(image) if mark is None else mark.state is not State.STORED
        if complete:
            size, modified = snapshot["size"], image.get_snap_timestamp(snapshot["id"])
        return ImageInfo(
            image_id=image.id(),
            size=size,
            complete=complete,
            mark=mark,
            unfinished=unfinished,
            watchers=count_watchers(image),
            modified=modified.replace(tzinfo=datetime.UTC).timestamp(),
        )

    def _opens(self, name: str, snapshot: str) -> bool:
        try:
            with bindings.opened(self.ioctx, name, snapshot):
                return True
        except bindings.rbd.ImageNotFound:
            return False
        except bindings.rbd.PermissionError:
            return True  # a user that may only read can open every snapshot that is listed

    def claim(
        self, name: str, nonce: str, create: Callable[[Any], None], *, reuse: bool = True
    ) -> Claim:
        """Create the image ``name``, or take over what an unfinished upload left under that name.

        :param create: creates the image in the pool it is given; fails if the name is taken
        :param reuse: ``False`` removes a leftover and creates the image anew, as for a clone
        :raises Duplicate: the name belongs to an object, a live upload or a foreign image
        """
        for _ in range(_CLAIM_ATTEMPTS):
            try:
                with self.cluster.calling("create", name):
                    create(self.ioctx)
                fresh = True
            except Duplicate:
                fresh = False
                if not self._is_leftover(name, remove=not reuse):
                    continue
            try:
                with self.cluster.calling("open", name):
                    image = bindings.open_image(self.ioctx, name)
            except NotFound:
                continue  # swept in the moment before it had a watcher
            image_id = None
            try:
                with self.cluster.calling("lock", name):
                    image_id = image.id()
                    features = image.features()
                    if self._take_over(image, name, fresh):
                        Mark(State.ADDING, nonce).put(image)
                        return Claim(image, image_id, name, nonce, features)
            except BaseException:
                bindings.release(image)
                if fresh and image_id is not None:
                    self._remove_own(name, image_id, None, nonce)
                raise
            bindings.release(image)
        raise being_added(name)

    def check_free(self, name: str) -> None:
        """Check that no object, live upload or foreign image has this name.

        :raises Duplicate: the name is taken
        """
        self._is_leftover(name, remove=False)

    def _is_leftover(self, name: str, *, remove: bool) -> bool:
        """Return whether the image of this name is a leftover that can be taken over.

        :param remove: remove the leftover and return ``False``
        :raises Duplicate: the image is not a leftover
        """
        info = self.inspect(name)
        if info is None:
            return False
        if not info.unfinished:
            raise duplicate(name)
        if info.watched:
            raise being_added(
                name, "if that process has died, the cluster takes half a minute to notice"
            )
        if remove:
            self.discard(name, info.image_id)
        return not remove

    def _take_over(self, image: Any, name: str, fresh: bool) -> bool:
        """Lock and empty an image; return ``False`` if another client got it first.

        If several clients try to take over the same leftover, only one gets the lock.
        """
        if not acquire_lock(image):
            return False
        if fresh:  # unless another client took it over before it was locked
            image.size()  # refreshes it
            return find_snapshot(image, SNAPSHOT) is None and Mark.of(image) is None
        if not self._inspect(image, name).unfinished:
            return False
        if find_snapshot(image, SNAPSHOT) is not None:
            remove_snapshot(image, SNAPSHOT)
        image.resize(0)
        with contextlib.suppress(bindings.rbd.ImageNotFound):
            image.parent_info()
            image.flatten()  # empty by now: this detaches an unfinished copy from its parent
        return True

    def discard(self, name: str, image_id: str) -> bool:
        """Remove an unfinished image without watchers; return whether it was removed."""
        info = self.inspect(name)
        try:
            if info is None or info.image_id != image_id:
                return self._finish_removal(name, image_id)
            with (
                self.cluster.calling("lock", name),
                bindings.opened(self.ioctx, name) as image,
            ):
                if image.id() != image_id or count_watchers(image) > 1 or not acquire_lock(image):
                    return False
                if not self._inspect(image, name).unfinished:
                    return False
                if find_snapshot(image, SNAPSHOT) is not None:
                    remove_snapshot(image, SNAPSHOT)
            self._remove(name)
        except (NotFound, InUseByStore, HasSnapshot):
            return False
        return True

    def _finish_removal(self, name: str, image_id: str) -> bool:
        if self.inspect_half_removed(name, image_id) is None:
            return False
        with self.cluster.calling("remove", name):
            bindings.rbd.RBD().trash_remove(self.ioctx, image_id, True)
        return True

    def _remove(self, name: str) -> None:
        """Remove an image that has no snapshot.

        :raises InUseByStore: a client has the image open
        """
        with self.cluster.calling("remove", name):
            try:
                bindings.rbd.RBD().remove(self.ioctx, name)
            except bindings.rbd.ImageNotFound as error:
                if self.inspect(name) is None:
                    raise
                raise StorageFull(
                    f"Image {name} was not removed: Ceph removes an image by way of the pool's "
                    "trash, and the pool is too full to create one. Raise its quota for that long."
                ) from error

    def _remove_own(self, name: str, image_id: str, *nonces: str | None) -> None:
        """Remove an unfinished image whose mark has one of these nonces, ``None`` for no mark.

        An image that another client has taken over is kept, as that client has it open.
        """
        info = self.inspect(name)
        if info is None or info.image_id != image_id or info.complete:
            return
        if (info.mark.nonce if info.mark is not None else None) in nonces:
            with contextlib.suppress(NotFound, InUseByStore, HasSnapshot):
                self._remove(name)

    def withdraw(self, claim: Claim) -> None:
        """Close and remove a claimed image, with its snapshot if it has one.  Idempotent."""
        image, name = claim.image, claim.name
        try:
            with self.cluster.calling("remove the snapshot of", name):
                if bindings.is_open(image) and find_snapshot(image, SNAPSHOT) is not None:
                    remove_snapshot(image, SNAPSHOT)
        finally:
            with self.cluster.calling("close", name):
                bindings.release(image)
        self._retry(lambda: self._remove_own(name, claim.image_id, claim.nonce))

    def delete(self, name: str, snapshot: str | None) -> None:
        """Remove an object, or finish an earlier deletion of it.

        :param snapshot: the snapshot in its URI; ``None`` if it names none
        :raises InUseByStore: the image has clones or is open; it is unchanged
        :raises HasSnapshot: the image has other snapshots; it is unchanged
        :raises Forbidden: the image is not like an object's: a URI can name any image
        """
        own = snapshot or SNAPSHOT
        try:
            with self.cluster.calling("delete", name), bindings.opened(self.ioctx, name) as image:
                info = self._inspect(image, name, own)
                absent = snapshot is not None or info.unfinished
                if absent and not info.complete and not info.deleting:
                    raise not_found(name)
                if info.mark is None and not (info.complete and own == SNAPSHOT):
                    raise Forbidden(
                        f"Image {name} was not deleted. Expected one with the snapshot "
                        f"{SNAPSHOT!r}, by which an object is known; got one that any software in "
                        "this pool may have made. Remove it with `rbd rm` if nobody needs it."
                    )
                check_unused(image, name, own, info.watchers)
                if info.complete:
                    unprotect(image, own)
                    # By the mark, the rest of the image is recognised if this process dies here.
                    nonce = info.mark.nonce if info.mark is not None else _NO_NONCE
                    Mark(State.DELETING, nonce).put(image)
                    image.remove_snap(own)
        except NotFound:
            if not self._finish_removals(name):
                raise
            return
        try:
            self._remove(name)
        except (InUseByStore, StorageFull):  # no part of the image is removed yet
            if info.complete:
                with (
                    self.cluster.calling("restore", name),
                    bindings.opened(self.ioctx, name) as image,
                ):
                    publish(image, own)
                    remove_mark(image) if info.mark is None else info.mark.put(image)
            raise

    def _finish_removals(self, name: str) -> bool:
        """Finish the unfinished deletions of ``name``; return whether there was one."""
        finished = False
        for entry, image_id in self.entries():
            info = self.inspect_half_removed(name, image_id) if entry == name else None
            if info is not None and info.deleting:
                finished |= self._finish_removal(name, image_id)
        return finished


def remove_mark(image: Any) -> None:
    """Remove an image's mark.  Idempotent."""
    with contextlib.suppress(KeyError):
        image.metadata_remove(_MARK_KEY)


def is_empty(image: Any) -> bool:
    """Return whether an image has no bytes, snapshots or metadata, like one just created."""
    return not image.size() and not list(image.list_snaps()) and not list(image.metadata_list())


def publish(image: Any, snapshot: str = SNAPSHOT) -> None:
    """Make an image an object.  Idempotent."""
    if find_snapshot(image, snapshot) is None:
        image.create_snap(snapshot)
    if not image.is_protected_snap(snapshot):
        image.protect_snap(snapshot)


def find_snapshot(image: Any, name: str) -> Any:
    """Return Ceph's record of a snapshot, or ``None`` if there is none of this name."""
    return next((record for record in image.list_snaps() if record["name"] == name), None)


def other_snapshots(image: Any, own: str) -> list[str]:
    """Return the names of an image's snapshots other than ``own``."""
    return [record["name"] for record in image.list_snaps() if record["name"] != own]


def remove_snapshot(image: Any, name: str) -> None:
    """Remove a snapshot, protected or not."""
    unprotect(image, name)
    image.remove_snap(name)


def unprotect(image: Any, name: str) -> None:
    """Allow a snapshot to be removed.

    :raises InUseByStore: the snapshot has clones
    """
    if image.is_protected_snap(name):
        try:
            image.unprotect_snap(name)
        except bindings.rbd.ImageBusy as error:
            raise _has_clones(image) from error


def acquire_lock(image: Any) -> bool:
    """Acquire an image's exclusive lock and keep it until the image is closed.

    The lock of an owner without a watcher is broken, and that owner is shut out of the cluster.

    :returns: ``False`` if a living client holds the lock
    """
    rbd = bindings.rbd
    if not image.features() & rbd.RBD_FEATURE_EXCLUSIVE_LOCK:
        with contextlib.suppress(rbd.InvalidArgument):  # another process did so just now
            image.update_features(rbd.RBD_FEATURE_EXCLUSIVE_LOCK, True)
        image.size()  # refreshes the features
    try:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
    except rbd.ReadOnlyImage:
        return False
    return True


def count_watchers(image: Any) -> int:
    """Return how many clients have the image open for writing, this one included."""
    return sum(1 for _ in image.watchers_list())


def check_unused(image: Any, name: str, own: str, watchers: int) -> None:
    """Check that nothing but the store uses an image that is open for writing.

    :param own: the store's snapshot
    :param watchers: number of clients that have the image open for writing
    :raises HasSnapshot: the image has other snapshots
    :raises InUseByStore: another client has the image open, or it has clones of the new kind
    """
    if others := other_snapshots(image, own):
        raise HasSnapshot(
            f"Image {name} was not deleted: it has other snapshots: {', '.join(others[:5])}."
        )
    if watchers > 1:
        raise InUseByStore(
            f"Image {name} was not deleted: something has it open (see `rbd status`). Delete it "
            "when that has ended.",
            status=ErrorStatus.TEMPORARY,  # a reader that was dropped just now is still closing
        )
    # Clones of the old kind keep the snapshot protected.  With clones of the new kind the image has
    # this flag; only then are their names worth searching for, in all pools.
    if image.op_features() & bindings.rbd.RBD_OPERATION_FEATURE_CLONE_PARENT and _clones(image):
        raise _has_clones(image)


def _clones(image: Any) -> list[str]:
    try:
        return [str(child["image"] or child["id"]) for child in image.list_children2()]
    except bindings.rbd.PermissionError:
        return ["some in a pool that this user may not look into"]


def _has_clones(image: Any) -> InUseByStore:
    return InUseByStore(
        f"Image {image.get_name()} was not deleted: clones depend on it: "
        f"{', '.join(_clones(image)[:5])}. Flatten or delete them first."
    )
