"""One open image: its snapshot, its mark, its lock, and who else uses it."""

import contextlib
import dataclasses
import enum
from typing import Any, Self

from store_lib.drivers.rbd import bindings
from store_lib.exceptions import ErrorStatus, HasSnapshot, InUseByStore

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
