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
    StorageFull,
)

#: The snapshot that makes an image an object; Nova and Cinder clone from it.
SNAPSHOT = "snap"

#: Where an image's metadata has our mark.
_MARK = "store_lib.upload"


class State(enum.StrEnum):
    """What this library has done with an image."""

    ADDING = "adding"
    STORED = "stored"
    DELETING = "deleting"


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """What this library has noted on an image.

    It names the image by its id, as clones and copies inherit metadata: on those it says nothing.
    """

    state: State
    #: Of the upload that made the image; of a deletion that has none, for an image that no upload
    #: of ours made.
    nonce: str

    @classmethod
    def of(cls, image: Any) -> Self | None:
        """Return an image's mark, ``None`` when it has none of its own."""
        try:
            state, nonce, image_id = image.metadata_get(_MARK).split()
            return cls(State(state), nonce) if image_id == image.id() else None
        except (KeyError, ValueError):
            return None

    def put(self, image: Any) -> None:
        """Note it on an image."""
        image.metadata_set(_MARK, f"{self.state} {self.nonce} {image.id()}")


#: Stands for the nonce of an image that no upload of ours made.
_NO_NONCE = "-"

#: How often a name is tried for that others claim and give up at the same time.
_CLAIMS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What an image is."""

    image_id: str
    #: Bytes: of the object, where it is one.
    size: int
    #: Whether it is an object.
    complete: bool
    #: What this library noted on it; ``None`` for an image of somebody else's making.
    mark: Mark | None
    #: Whether it is what an upload has made so far, or left, or what a deletion has left.
    unfinished: bool
    #: How many have it open for writing.
    watchers: int
    #: Seconds since the epoch.
    modified: float

    @property
    def watched(self) -> bool:
        """Whether something has it open for writing."""
        return self.watchers > 0

    @property
    def deleting(self) -> bool:
        """Whether it is what a deletion has left."""
        return self.unfinished and self.mark is not None and self.mark.state is State.DELETING


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """An image that an upload has made, open and locked."""

    image: Any
    image_id: str
    name: str
    nonce: str
    #: Features that the cluster gave it; the lock's may have been added to them for a while.
    features: int


class Images:
    """The images of one pool.

    :param retry: repeats a request after a temporary error
    """

    def __init__(self, cluster: Cluster, pool: str, retry: Repeater) -> None:
        self._cluster = cluster
        self._pool = pool
        self._retry = retry

    @property
    def ioctx(self) -> Any:
        """The open pool."""
        return self._cluster.pool(self._pool)

    def entries(self) -> list[tuple[str, str]]:
        """Return name and id of all images; one that is half removed may have another's name."""

        def ask() -> list[tuple[str, str]]:
            with self._cluster.calling("list the images of a pool"):
                return [(each["name"], each["id"]) for each in bindings.rbd.RBD().list2(self.ioctx)]

        return self._retry(ask)

    def look(self, name: str, own: str = SNAPSHOT) -> Found | None:
        """Tell what the image ``name`` is, without a trace; ``None`` when there is none.

        :param own: the snapshot that makes it an object
        """
        try:
            with (
                self._cluster.calling("look at", name),
                bindings.opened(self.ioctx, name, read_only=True) as image,
            ):
                return self._look(image, name, own)
        except NotFound:
            return None

    def look_half_removed(self, name: str, image_id: str) -> Found | None:
        """Tell what the image is that has lost its name already, if we were removing it.

        Ceph removes by way of its trash, and keeps there what a dead process began to remove.
        """
        try:
            with (
                self._cluster.calling("look at", name),
                bindings.opened(self.ioctx, None, image_id=image_id, read_only=True) as image,
            ):
                found = self._look(image, name)
        except NotFound:
            return None
        return found if found.mark is not None and found.unfinished else None

    def _look(self, image: Any, name: str, own: str = SNAPSHOT) -> Found:
        size = image.size()  # asks for news of the image, which all the rest is told from
        modified = max(image.create_timestamp(), image.modify_timestamp())
        snapshot = snapshot_of(image, own)
        complete = snapshot is not None and (image.is_protected_snap(own) or self._opens(name, own))
        mark = Mark.of(image)
        unfinished = not complete and not others_of(image, own)
        if unfinished:
            unfinished = is_blank(image) if mark is None else mark.state is not State.STORED
        if complete:
            size, modified = snapshot["size"], image.get_snap_timestamp(snapshot["id"])
        return Found(
            image_id=image.id(),
            size=size,
            complete=complete,
            mark=mark,
            unfinished=unfinished,
            watchers=watchers_of(image),
            modified=modified.replace(tzinfo=datetime.UTC).timestamp(),
        )

    def _opens(self, name: str, snapshot: str) -> bool:
        try:
            with bindings.opened(self.ioctx, name, snapshot):
                return True
        except bindings.rbd.ImageNotFound:
            return False
        except bindings.rbd.PermissionError:
            return True  # a user that may only read opens all that is listed

    def claim(
        self, name: str, nonce: str, make: Callable[[Any], None], *, anew: bool = False
    ) -> Claimed:
        """Make the image ``name``, or take over what an upload left under this name.

        :param make: makes it, and fails when the name is taken
        :param anew: a leftover cannot be used again: it is made a clone
        :raises Duplicate: the name is taken, by an object, by an upload at work, or by an
            image of somebody else's
        """
        for _ in range(_CLAIMS):
            try:
                with self._cluster.calling("make", name):
                    make(self.ioctx)
                fresh = True
            except Duplicate:
                fresh = False
                if not self._is_leftover(name, remove=anew):
                    continue
            try:
                with self._cluster.calling("open", name):
                    image = bindings.open_image(self.ioctx, name)
            except NotFound:
                continue  # swept, in the moment before it had a watcher
            image_id = None
            try:
                with self._cluster.calling("lock", name):
                    image_id = image.id()
                    features = image.features()
                    if self._own(image, name, fresh):
                        Mark(State.ADDING, nonce).put(image)
                        return Claimed(image, image_id, name, nonce, features)
            except BaseException:
                bindings.release(image)
                if fresh and image_id is not None:
                    self._remove_own(name, image_id, None, nonce)
                raise
            bindings.release(image)
        raise Duplicate(f"Object {name} is being added by others right now.")

    def _is_leftover(self, name: str, *, remove: bool) -> bool:
        """Say whether a leftover has the name, and can be taken over.

        :param remove: remove it instead, and say no
        :raises Duplicate: what has the name is no leftover
        """
        found = self.look(name)
        if found is None:
            return False
        if not found.unfinished:
            raise Duplicate(image=name)
        if found.watched:
            raise Duplicate(
                f"Object {name} is being added right now; or its process died, and the cluster "
                "has yet to notice, which takes it half a minute."
            )
        return not (remove and self.discard(name, found.image_id))

    def _own(self, image: Any, name: str, fresh: bool) -> bool:
        """Lock an image, unless somebody else has, and empty it; say whether it is ours now.

        Of all who find the same leftover the lock lets one through.
        """
        if not lock_for_good(image):
            return False
        if fresh:  # unless others took it over before it was locked
            image.size()  # asks for news
            return snapshot_of(image, SNAPSHOT) is None and Mark.of(image) is None
        if not self._look(image, name).unfinished:
            return False
        if snapshot_of(image, SNAPSHOT) is not None:
            remove_snapshot(image, SNAPSHOT)
        image.resize(0)
        with contextlib.suppress(bindings.rbd.ImageNotFound):
            image.parent_info()
            image.flatten()  # of nothing: it was to be a copy, and is no child from now on
        return True

    def discard(self, name: str, image_id: str) -> bool:
        """Remove an unfinished image that nobody is at work on; say whether it was removed."""
        found = self.look(name)
        try:
            if found is None or found.image_id != image_id:
                return self._finish_removal(name, image_id)
            with (
                self._cluster.calling("lock", name),
                bindings.opened(self.ioctx, name) as image,
            ):
                if image.id() != image_id or watchers_of(image) > 1 or not lock_for_good(image):
                    return False
                if not self._look(image, name).unfinished:
                    return False
                if snapshot_of(image, SNAPSHOT) is not None:
                    remove_snapshot(image, SNAPSHOT)
            self._remove(name)
        except (NotFound, InUseByStore, HasSnapshot):
            return False
        return True

    def _finish_removal(self, name: str, image_id: str) -> bool:
        if self.look_half_removed(name, image_id) is None:
            return False
        with self._cluster.calling("remove", name):
            bindings.rbd.RBD().trash_remove(self.ioctx, image_id, True)
        return True

    def _remove(self, name: str) -> None:
        """Remove an image that has no snapshot.

        :raises InUseByStore: something has it open
        """
        with self._cluster.calling("remove", name):
            try:
                bindings.rbd.RBD().remove(self.ioctx, name)
            except bindings.rbd.ImageNotFound as error:
                if self.look(name) is None:
                    raise
                raise StorageFull(
                    f"Image {name} was not removed: Ceph removes by way of the pool's trash, and "
                    "the pool is too full to make one. Raise its quota for that long."
                ) from error

    def _remove_own(self, name: str, image_id: str, *nonces: str | None) -> None:
        """Remove an unfinished image whose mark has one of these nonces, ``None`` for no mark.

        Whoever has taken it over has it open.
        """
        found = self.look(name)
        if found is None or found.image_id != image_id or found.complete:
            return
        if (found.mark.nonce if found.mark is not None else None) in nonces:
            with contextlib.suppress(NotFound, InUseByStore, HasSnapshot):
                self._remove(name)

    def withdraw(self, claimed: Claimed) -> None:
        """Close what an upload made, and remove it, its snapshot included."""
        image, name = claimed.image, claimed.name
        try:
            with self._cluster.calling("remove the snapshot of", name):
                if bindings.is_ours(image) and snapshot_of(image, SNAPSHOT) is not None:
                    remove_snapshot(image, SNAPSHOT)
        finally:
            with self._cluster.calling("close", name):
                bindings.release(image)
        self._retry(lambda: self._remove_own(name, claimed.image_id, claimed.nonce))

    def delete(self, name: str, snapshot: str | None) -> None:
        """Remove an object, or finish what a deletion before has left undone.

        :param snapshot: the one its URI names; ``None`` when it names none
        :raises InUseByStore: clones depend on it, or something has it open; it is intact
        :raises HasSnapshot: it has other snapshots; it is intact
        :raises Forbidden: it does not look like an object: any image can stand in a URI
        """
        own = snapshot or SNAPSHOT
        try:
            with self._cluster.calling("delete", name), bindings.opened(self.ioctx, name) as image:
                found = self._look(image, name, own)
                absent = snapshot is not None or found.unfinished
                if absent and not found.complete and not found.deleting:
                    raise NotFound(image=name)
                if found.mark is None and not (found.complete and own == SNAPSHOT):
                    raise Forbidden(
                        f"Image {name} was not deleted. Expected one with the snapshot "
                        f"{SNAPSHOT!r}, by which an object is known; got one that any software in "
                        "this pool may have made. Remove it with `rbd rm` if nobody needs it."
                    )
                check_unused(image, name, own, found.watchers)
                if found.complete:
                    unprotect(image, own)
                    # So that what is left can be found if this process dies here.
                    nonce = found.mark.nonce if found.mark is not None else _NO_NONCE
                    Mark(State.DELETING, nonce).put(image)
                    image.remove_snap(own)
        except NotFound:
            if not self._finish_removals(name):
                raise
            return
        try:
            self._remove(name)
        except (InUseByStore, StorageFull):  # none of it is removed yet
            if found.complete:
                with (
                    self._cluster.calling("restore", name),
                    bindings.opened(self.ioctx, name) as image,
                ):
                    publish(image, own)
                    remove_mark(image) if found.mark is None else found.mark.put(image)
            raise

    def _finish_removals(self, name: str) -> bool:
        """Finish what deletions of ``name`` began; say whether there was anything left."""
        finished = False
        for each, image_id in self.entries():
            found = self.look_half_removed(name, image_id) if each == name else None
            if found is not None and found.deleting:
                finished |= self._finish_removal(name, image_id)
        return finished


def restore_features(claimed: Claimed) -> None:
    """Take the lock's feature away again, where the cluster does not give it to images."""
    lock = bindings.rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    if claimed.image.features() & lock and not claimed.features & lock:
        claimed.image.update_features(lock, False)


def remove_mark(image: Any) -> None:
    """Remove an image's mark.  Idempotent."""
    with contextlib.suppress(KeyError):
        image.metadata_remove(_MARK)


def is_blank(image: Any) -> bool:
    """Tell whether an image holds nothing at all, as one does that was made just now."""
    return not image.size() and not list(image.list_snaps()) and not list(image.metadata_list())


def publish(image: Any, snapshot: str = SNAPSHOT) -> None:
    """Make an image an object; again is harmless."""
    if snapshot_of(image, snapshot) is None:
        image.create_snap(snapshot)
    if not image.is_protected_snap(snapshot):
        image.protect_snap(snapshot)


def snapshot_of(image: Any, name: str) -> Any:
    """Return what Ceph tells of a snapshot, ``None`` when there is none of this name."""
    return next((each for each in image.list_snaps() if each["name"] == name), None)


def others_of(image: Any, own: str) -> list[str]:
    """Return the names of the snapshots that an image has besides the store's own."""
    return [each["name"] for each in image.list_snaps() if each["name"] != own]


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


def lock_for_good(image: Any) -> bool:
    """Take an image's lock for good, and say whether that was possible.

    A lock whose owner has no watcher any more is broken, and the owner shut out of the cluster.
    """
    rbd = bindings.rbd
    if not image.features() & rbd.RBD_FEATURE_EXCLUSIVE_LOCK:
        with contextlib.suppress(rbd.InvalidArgument):  # another process did so just now
            image.update_features(rbd.RBD_FEATURE_EXCLUSIVE_LOCK, True)
        image.size()  # takes note of the feature
    try:
        image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
    except rbd.ReadOnlyImage:
        return False
    return True


def watchers_of(image: Any) -> int:
    """Return how many have the image open for writing, this one included if it does."""
    return sum(1 for _ in image.watchers_list())


def check_unused(image: Any, name: str, own: str, watchers: int) -> None:
    """Make sure that nothing but the store uses an image that is open for writing.

    :param own: the store's snapshot
    :param watchers: how many have the image open for writing
    :raises HasSnapshot: it has others
    :raises InUseByStore: something has it open, or clones of the new kind depend on it
    """
    if others := others_of(image, own):
        raise HasSnapshot(
            f"Image {name} was not deleted: it has other snapshots: {', '.join(others[:5])}."
        )
    if watchers > 1:
        raise InUseByStore(
            f"Image {name} was not deleted: something has it open (see `rbd status`). Delete it "
            "when that has ended.",
            status=ErrorStatus.TEMPORARY,  # a reader that was dropped just now is still closing
        )
    # Clones of the old kind keep the snapshot protected; of the new kind the image itself tells,
    # and only then are the names, in whatever pools, worth looking for.
    if image.op_features() & bindings.rbd.RBD_OPERATION_FEATURE_CLONE_PARENT and _clones(image):
        raise _has_clones(image)


def _clones(image: Any) -> list[str]:
    try:
        return [str(each["image"] or each["id"]) for each in image.list_children2()]
    except bindings.rbd.PermissionError:
        return ["some in a pool that this user may not look into"]


def _has_clones(image: Any) -> InUseByStore:
    return InUseByStore(
        f"Image {image.get_name()} was not deleted: clones depend on it: "
        f"{', '.join(_clones(image)[:5])}. Flatten or delete them first."
    )
