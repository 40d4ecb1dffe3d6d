"""The images of a pool: what each is, how a name is claimed, and how an image is removed.

An image with the snapshot ``snap`` is an object.  One without is an upload that has not come to
its end, if it bears an upload's nonce in its metadata, or is empty: an image is made empty and
gets its nonce before anything else.  Any other image is somebody else's, and stays.  A snapshot
whose making was cut short is listed but cannot be opened, for want of its object map, and counts
for nothing; one that is protected was made to its end.

Who makes an image holds its exclusive lock until the object is published.  Who finds an
unfinished one without watchers takes that lock before it removes it, which shuts out a dead
owner that comes back to life.
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.cluster import Cluster
from store_lib.drivers.rbd.image import (
    SNAPSHOT,
    check_unused,
    lock_for_good,
    publish,
    remove_snapshot,
    snapshot_of,
    unprotect,
    watchers_of,
)
from store_lib.exceptions import Duplicate, HasSnapshot, InUseByStore, NotFound, StorageFull

#: Where an image's metadata has the nonce of the upload that made it.
_NONCE = "store_lib.upload"
#: What stands there while an image that no upload of ours made is being deleted.
_BEING_DELETED = "deleted"

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
    #: The nonce of the upload that made it; ``None`` for an image of somebody else's making.
    nonce: str | None
    #: How many have it open for writing.
    watchers: int
    #: Seconds since the epoch.
    modified: float

    @property
    def watched(self) -> bool:
        """Whether something has it open for writing."""
        return self.watchers > 0

    @property
    def unfinished(self) -> bool:
        """Whether it is what an upload has made so far, or left."""
        return not self.complete and (self.nonce is not None or self.size == 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Claimed:
    """An image that an upload has made, open and locked."""

    image: Any
    name: str
    nonce: str
    #: Features that the cluster gave it; the lock's may have been added to them for a while.
    features: int


class Images:
    """The images of one pool."""

    def __init__(self, cluster: Cluster, pool: str) -> None:
        self._cluster = cluster
        self._pool = pool

    @property
    def ioctx(self) -> Any:
        """The open pool."""
        return self._cluster.pool(self._pool)

    def entries(self) -> list[tuple[str, str]]:
        """Return name and id of all images; one that is half removed may have another's name."""
        with self._cluster.calling("list the images of a pool"):
            return [(each["name"], each["id"]) for each in bindings.rbd.RBD().list2(self.ioctx)]

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
        """Tell what the image is that has lost its name already, if it was one of ours.

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
        return found if found.nonce is not None else None

    def _look(self, image: Any, name: str, own: str = SNAPSHOT) -> Found:
        size = image.size()  # asks for news of the image, which all the rest is told from
        modified = max(image.create_timestamp(), image.modify_timestamp())
        snapshot = snapshot_of(image, own)
        complete = snapshot is not None and (image.is_protected_snap(own) or self._opens(name, own))
        if complete:
            size, modified = snapshot["size"], image.get_snap_timestamp(snapshot["id"])
        return Found(
            image_id=image.id(),
            size=size,
            complete=complete,
            nonce=_nonce_of(image),
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
        self, name: str, nonce: str, make: Callable[[Any], None], parent: Found | None = None
    ) -> Claimed:
        """Make the image ``name``, or take over what an upload left under this name.

        :param make: makes it, and fails when the name is taken
        :param parent: what it is made a clone of: it has that one's nonce then at first, and a
            leftover cannot be used again
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
                if not self._is_leftover(name, remove=parent is not None):
                    continue
            try:
                with self._cluster.calling("open", name):
                    image = bindings.open_image(self.ioctx, name)
            except NotFound:
                continue  # swept, in the moment before it had a watcher
            inherited = parent.nonce if parent is not None else None
            try:
                with self._cluster.calling("lock", name):
                    features = image.features()
                    if self._own(image, name, fresh, inherited):
                        image.metadata_set(_NONCE, nonce)
                        return Claimed(image, name, nonce, features)
            except BaseException:
                bindings.release(image)
                if fresh:
                    self._remove_own(name, None, inherited, nonce)
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

    def _own(self, image: Any, name: str, fresh: bool, inherited: str | None) -> bool:
        """Lock an image, unless somebody else has, and empty it; say whether it is ours now.

        Of all who find the same leftover the lock lets one through.
        """
        if not lock_for_good(image):
            return False
        if fresh:  # unless others took it over before it was locked
            image.size()  # asks for news
            return snapshot_of(image, SNAPSHOT) is None and _nonce_of(image) in (None, inherited)
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

    def _remove_own(self, name: str, *nonces: str | None) -> None:
        """Remove an unfinished image with one of these nonces: no other is the upload's own.

        Whoever has taken it over has it open.
        """
        found = self.look(name)
        if found is not None and not found.complete and found.nonce in nonces:
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
        self._remove_own(name, claimed.nonce)

    def delete(self, name: str, snapshot: str | None) -> None:
        """Remove an object.

        :param snapshot: the one its URI names; ``None`` when it names none
        :raises InUseByStore: clones depend on it, or something has it open; it is intact
        :raises HasSnapshot: it has other snapshots; it is intact
        """
        own = snapshot or SNAPSHOT
        with self._cluster.calling("delete", name), bindings.opened(self.ioctx, name) as image:
            found = self._look(image, name, own)
            if not found.complete and (snapshot is not None or found.unfinished):
                raise NotFound(image=name)
            check_unused(image, name, own, found.watchers)
            if found.complete:
                unprotect(image, own)
                if found.nonce is None:
                    # So that what is left can be found if this process dies here.
                    image.metadata_set(_NONCE, _BEING_DELETED)
                image.remove_snap(own)
        try:
            self._remove(name)
        except (InUseByStore, StorageFull):  # none of it is removed yet
            if found.complete:
                with (
                    self._cluster.calling("restore", name),
                    bindings.opened(self.ioctx, name) as image,
                ):
                    publish(image, own)
                    if found.nonce is None:
                        image.metadata_remove(_NONCE)
            raise


def _nonce_of(image: Any) -> str | None:
    try:
        nonce: str = image.metadata_get(_NONCE)
    except KeyError:
        return None
    return nonce


def restore_features(claimed: Claimed) -> None:
    """Take the lock's feature away again, where the cluster does not give it to images."""
    lock = bindings.rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    if claimed.image.features() & lock and not claimed.features & lock:
        claimed.image.update_features(lock, False)
