"""The images of a pool: what each is, how a name is claimed, and how an image is removed.

An image with the snapshot ``snap`` is an object.  One without is an upload that has not come to
its end, or a deletion that has not, if its mark says so (see :class:`Mark`), or if it holds nothing
at all: an image is made empty and gets its mark before anything else.  Any other image is somebody
else's, and stays: a volume that was cloned from an object, an object whose snapshot somebody took
away, an image whose metadata somebody changed.  A snapshot whose making was cut short is listed
but cannot be opened, for want of its object map, and counts for nothing; one that is protected was
made to its end.

Who makes an image holds its exclusive lock until the object is published.  Who finds an
unfinished one without watchers takes that lock before it removes it, which shuts out a dead
owner that comes back to life.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

from store_lib.driver import Repeater
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.cluster import Cluster
from store_lib.drivers.rbd.image import (
    SNAPSHOT,
    Mark,
    State,
    check_unused,
    is_blank,
    lock_for_good,
    others_of,
    publish,
    remove_mark,
    remove_snapshot,
    snapshot_of,
    unprotect,
    watchers_of,
)
from store_lib.exceptions import (
    Duplicate,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    NotFound,
    StorageFull,
)

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
