"""The Cinder driver: checks its options, finds volumes, and hands out writers and readers."""

import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.driver import (
    CreateOnly,
    Driver,
    Entry,
    Incomplete,
    PositionWriter,
    Reader,
    Stat,
)
from store_lib.drivers.cinder.attachment import Attachment
from store_lib.drivers.cinder.errors import is_refusal
from store_lib.drivers.cinder.leftovers import (
    ATTACHED_STATES,
    dead_attachments,
    end_attachment,
    remove,
)
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.cinder.options import LIBRARY_OPTIONS, OPTIONS
from store_lib.drivers.cinder.reader import VolumeReader
from store_lib.drivers.cinder.sharing import SharedAttachments
from store_lib.drivers.cinder.uploads import (
    IMAGE_ID,
    OBJECT,
    SIZE,
    Upload,
    describe,
    is_object,
    is_unfinished,
)
from store_lib.drivers.cinder.volume import GIB, Volume
from store_lib.drivers.cinder.writer import VolumeWriter, clone, make_volume
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    DriverLoadFailure,
    ErrorStatus,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    InvalidRange,
    NotFound,
    StoreError,
)
from store_lib.location import Location

if TYPE_CHECKING:
    from store_lib.drivers.cinder.access import Access
    from store_lib.drivers.cinder.api import Cinder
    from store_lib.drivers.cinder.brick import Host

_LOG = get_logger(__name__)

#: Characters of a volume's name, of which "image-" takes some.
_LONGEST_ID = 255 - len("image-")

_IN_USE = "Volume {} is attached ({}) and was not deleted. Delete it when nobody reads it any more."
_RESERVED = (
    "Volume {} is in state {!r} and was not deleted: an attachment was begun. Delete it when that "
    "has ended; where it never does, a sweep ends it after five minutes."
)


class CinderDriver(Driver[CinderLocation]):
    """Keeps each object in a volume of its own."""

    schemes: ClassVar[tuple[str, ...]] = CinderLocation.schemes
    location_class: ClassVar[type[Location]] = CinderLocation
    options: ClassVar[tuple[cfg.Opt, ...]] = OPTIONS
    library_options: ClassVar[Mapping[str, tuple[cfg.Opt, ...]]] = LIBRARY_OPTIONS
    create_only = CreateOnly.NEW_LOCATION
    ranges = True
    # Storage at the end of a network answers several questions at once.
    read_concurrency = 4
    read_size = 4 * 1024 * 1024
    # The page cache of a file gives more than this, and what is behind a network less.
    single_stream_rate = 1024 * 1024 * 1024

    _access: "Access"
    _host: "Host"
    _shared: SharedAttachments

    def configure(self) -> None:
        """Check the options, and with a login of its own the volume type.

        :raises BadStoreConfiguration: something is missing or wrong
        """
        lock_path = self.conf.get("lock_path")
        if not lock_path or not os.access(lock_path, os.W_OK | os.X_OK, effective_ids=True):
            raise self.misconfigured(
                "expected lock_path in [oslo_concurrency] as a directory that can be written to, "
                f"the same for all processes of this host; got {lock_path}"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs, on being imported
                from store_lib.drivers.cinder.access import Access
                from store_lib.drivers.cinder.brick import Host
        except ImportError as error:
            raise DriverLoadFailure(
                driver_name="cinder",
                reason=f"{error.name or error} is not installed: pip install store_lib[cinder]",
            ) from error
        self._access = Access(self.store_id, self.conf, self.retry)
        self._host = Host(
            lock_path=lock_path,
            helper_command=self.conf.get("helper_command"),
            rootwrap_config=self.conf.rootwrap_config,
            mount_base=self.conf.cinder_mount_point_base,
            multipath=self.conf.cinder_use_multipath,
            enforce_multipath=self.conf.cinder_enforce_multipath,
        )
        self._shared = SharedAttachments()
        self._check_type()

    def _check_type(self) -> None:
        name = self.conf.cinder_volume_type
        if not name or not self._access.has_login:
            return
        try:
            known = self._access.cinder(None).has_type(name)
        except StoreError as error:
            if error.status is ErrorStatus.PERMANENT:
                raise
            # Cinder may come up later; an add then finds out.
            _LOG.warning("Store %s: the volume type is not checked: %s", self.store_id, error)
            return
        if not known:
            raise BadStoreConfiguration(
                store_name=self.store_id,
                reason=f"cinder_volume_type: Cinder has no volume type {name!r} for this project. "
                "Volumes can be read; name a type that there is to add some",
                store=self.store_id,
                readable=True,
            )

    def id_problem(self, object_id: str) -> str | None:
        if len(object_id) > _LONGEST_ID:
            return f"it has more than {_LONGEST_ID} characters."
        if any(ord(character) > 0xFFFF for character in object_id):
            return "it has characters beyond U+FFFF, which Cinder's databases may not hold."
        return None

    @property
    def _uri_store(self) -> str | None:
        """The store's id in new URIs; none in the old single-store form."""
        return None if self.conf.section == "glance_store" else self.store_id

    @property
    def url_prefix(self) -> str:
        """What new URIs begin with, as with glance_store."""
        return f"cinder://{self._uri_store or ''}"

    def holds(self, location: Location) -> bool:
        """Tell whether a URI names this store, by an id that it has or had, or none."""
        named = _checked(location).store_id
        return named is None or named == self.store_id or self.conf.moved_from(named)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: Any
    ) -> PositionWriter:
        """Make a volume and attach it.

        :raises StorageFull: the quota or the backends do not allow a volume of that size
        """

        cinder = self._access.cinder(context)
        gibibytes = max(1, -(-(size or 0) // GIB))
        upload = self._begin(object_id, nonce, context)
        try:
            volume = make_volume(cinder, upload, gibibytes, self.conf.cinder_volume_type)
            return VolumeWriter(
                cinder,
                upload,
                volume,
                store_id=self._uri_store,
                patience=self._attach_patience,
                grow_attached=self.conf.cinder_do_extend_attached,
            )
        except BaseException:
            upload.end()
            raise

    def _begin(self, object_id: str, nonce: str, context: Any) -> Upload:

        upload = Upload(object_id, nonce, self._access.project(context), self._host)
        upload.begin()
        return upload

    @property
    def _attach_patience(self) -> float:
        """Seconds to wait for a volume that another one is about to attach."""
        attempts = self.conf.cinder_attachment_retry_attempts
        return float(sum(min(2**number, 10) for number in range(1, attempts)))

    def read(self, location: Location, offset: int, length: int | None, *, context: Any) -> Reader:
        """Attach the volume, unless another reader of this process has, and read from it.

        :raises NotFound: there is no such volume, or it never became an object
        :raises BackendException: it is in a state in which it cannot be attached, or in use
            elsewhere
        """

        self._shared.settle()
        cinder = self._access.cinder(context)
        volume = self._object(cinder, location)
        size = _size(volume)
        if offset > size:
            raise InvalidRange(size=size, offset=offset, length=length)
        attachment = self._shared.take(
            volume.id,
            cinder,
            lambda: Attachment(
                cinder,
                self._host,
                volume,
                mode="ro",
                patience=self._attach_patience,
                owe=lambda attachment: self._shared.owe(attachment, cinder),
            ),
        )
        give = functools.partial(self._shared.give, attachment, cinder)
        return VolumeReader(attachment, size, offset, length, give)

    def stat(self, location: Location, *, context: Any) -> Stat:
        """Tell of an object; its size is the volume's where the metadata has none."""
        volume = self._object(self._access.cinder(context), location)
        return Stat(_size(volume), volume.updated, dict(volume.metadata))

    def delete(self, location: Location, *, context: Any) -> None:
        """Have the volume deleted; Cinder does so after its answer.

        :raises InUseByStore: it is attached
        :raises HasSnapshot: it has snapshots
        :raises Forbidden: it does not look like an image's: any volume can stand in a URI
        """

        self._shared.settle()
        cinder = self._access.cinder(context)
        volume = self._object(cinder, location)
        if not is_object(volume):
            raise Forbidden(
                f"Volume {volume.id} was not deleted. Expected an image's volume, which is named "
                f"image-<id> and has that id in its metadata as {IMAGE_ID}; got one that does not "
                "agree. Restore these if it is an image's, else delete it in Cinder."
            )
        for attempt in range(3):
            try:
                return cinder.delete(volume.id)
            except BackendException as error:
                if not is_refusal(error):
                    raise
                refusal = error
            volume = self._object(cinder, location)
            if cinder.has_snapshots(volume.id):
                raise HasSnapshot(
                    f"Volume {volume.id} has snapshots and was not deleted. Delete them first."
                ) from refusal
            if volume.hosts or volume.status in ATTACHED_STATES:
                told = _RESERVED if volume.status in ("reserved", "attaching") else _IN_USE
                raise InUseByStore(told.format(volume.id, volume.status)) from refusal
            # A reader may have ended since.
            if attempt == 2 or volume.status != "available":
                break
        raise BackendException(
            f"Volume {volume.id} is in state {volume.status!r} and was not deleted. Wait until "
            "Cinder has ended what it is doing with it, or look for the reason in Cinder, and "
            f"reset its state there. ({refusal})"
        ) from refusal

    def list(self, *, context: Any) -> Iterator[Entry]:
        """Yield the volumes of this store's type that are objects."""

        for volume in self._volumes(self._access.cinder(context)):
            object_id = volume.metadata.get(IMAGE_ID)
            if object_id and OBJECT not in volume.metadata:
                location = CinderLocation(volume.id, self._uri_store)
                yield Entry(object_id, location, _size(volume), volume.updated)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        """Yield the volumes of this store's type that never became objects, or are about to.

        And the attachments of objects that nobody uses any more.
        """

        self._shared.settle()
        self._host.remove_dead_locks()
        cinder = self._access.cinder(context)
        for volume in self._volumes(cinder):
            if is_unfinished(volume):
                yield describe(self._host, volume, cinder.now())
            elif OBJECT not in volume.metadata and IMAGE_ID in volume.metadata:
                yield from dead_attachments(cinder, self._host, volume)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        """Remove a volume that never became an object and what attaches it, or an attachment."""

        cinder = self._access.cinder(context)
        if "/" in incomplete.key:
            return end_attachment(cinder, self._host, incomplete.key)
        try:
            volume = cinder.get(incomplete.key)
        except NotFound:
            return False
        if volume.status == "deleting" or not is_unfinished(volume):
            return False
        if describe(self._host, volume, cinder.now()).live:
            return False
        remove(cinder, self._host, volume.id)
        return True

    def copy(self, location: Location, object_id: str, *, nonce: str, context: Any) -> Location:
        """Have Cinder clone the volume.

        :raises NotSupported: it is of another volume type, so that its bytes have to be moved
        """

        cinder = self._access.cinder(context)
        volume = self._object(cinder, location)
        if not self._is_ours(cinder)(volume):
            raise self._unsupported(f"clone a volume of type {volume.volume_type}")
        upload = self._begin(object_id, nonce, context)
        try:
            made = clone(cinder, upload, volume, _size(volume), self.conf.cinder_volume_type)
        finally:
            upload.end()
        return CinderLocation(made, self._uri_store)

    def is_image_associated_with_store(self, context: Any, volume_id: str) -> bool:
        """Tell whether a volume of an old URI is of this store's type; never raises.

        Glance asks every store for this before it writes the store's id into the URI.
        """
        try:
            cinder = self._access.cinder(context)
            return self._is_ours(cinder)(cinder.get(volume_id))
        except Exception as error:
            _LOG.info("Store %s: volume %s is not known: %s", self.store_id, volume_id, error)
            return False

    def close(self) -> None:
        """Close this process's connections."""
        self._shared.settle()
        self._access.close()

    def _object(self, cinder: "Cinder", location: Location) -> Volume:
        """Return an object's volume.

        :raises NotFound: there is none, or one that never became an object
        """

        volume = cinder.get(_checked(location).volume_id)
        if volume.status == "deleting" or OBJECT in volume.metadata:
            raise NotFound(f"There is no object in volume {volume.id} ({volume.status}).")
        return volume

    def _volumes(self, cinder: "Cinder") -> Iterator[Volume]:
        return (
            volume
            for volume in filter(self._is_ours(cinder), cinder.all())
            if volume.status != "deleting"
        )

    def _is_ours(self, cinder: "Cinder") -> Callable[[Volume], bool]:
        """Return what tells a volume of this store's type, Cinder's default without one."""
        wanted = self.conf.cinder_volume_type or cinder.default_type()
        return lambda volume: volume.volume_type == wanted


def _checked(location: Location) -> CinderLocation:
    assert isinstance(location, CinderLocation), type(location)
    return location


def _size(volume: Volume) -> int:
    """Return the bytes of an object: of the whole volume, where it does not say."""
    told = volume.metadata.get(SIZE, "")
    # A user may write anything there, also more digits than Python converts.
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else volume.size
