"""The Cinder driver: an object is a volume, attached to this host while it is written or read."""

import functools
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.driver import (
    CreateOnly,
    Driver,
    Entry,
    Incomplete,
    Reader,
    RequestContext,
    Stat,
)
from store_lib.drivers.cinder.attachment import Attachment, SharedAttachments
from store_lib.drivers.cinder.errors import is_invalid_state
from store_lib.drivers.cinder.incomplete import ATTACHED_STATES, Cleanup
from store_lib.drivers.cinder.location import CinderLocation
from store_lib.drivers.cinder.options import LIBRARY_OPTIONS, OPTIONS, Settings
from store_lib.drivers.cinder.reader import VolumeReader
from store_lib.drivers.cinder.volume import HEARTBEAT_TIMEOUT, IMAGE_ID, UPLOAD, Volume
from store_lib.drivers.cinder.writer import Upload, VolumeWriter
from store_lib.exceptions import (
    BackendException,
    ErrorStatus,
    Forbidden,
    HasSnapshot,
    InUseByStore,
    InvalidRange,
    StoreError,
)
from store_lib.location import Location

if TYPE_CHECKING:
    from store_lib.drivers.cinder.client import Cinder, CinderClients
    from store_lib.drivers.cinder.host import Host

_LOG = get_logger(__name__)

#: The largest number of characters of an object's id: a volume's name is "image-" and the id.
_LONGEST_ID = 255 - len("image-")

#: How often a deletion is requested: it may be refused because of a reader that has just ended.
_DELETE_ATTEMPTS = 3

_IN_USE = "Volume {} is attached ({}) and was not deleted. Delete it when it is no longer read."
_RESERVED = (
    "Volume {} is in state {!r} and was not deleted: an attachment was begun. Delete it when that "
    f"has ended; if it never does, a sweep ends it after {HEARTBEAT_TIMEOUT // 60} minutes."
)


class CinderDriver(Driver[CinderLocation]):
    """Stores every object in a volume of its own."""

    extra: ClassVar[str] = "cinder"
    schemes: ClassVar[tuple[str, ...]] = CinderLocation.schemes
    location_class: ClassVar[type[Location]] = CinderLocation
    options: ClassVar[tuple[cfg.Opt, ...]] = OPTIONS
    library_options: ClassVar[Mapping[str, tuple[cfg.Opt, ...]]] = LIBRARY_OPTIONS
    create_only = CreateOnly.NEW_LOCATION
    ranges = True
    copies = True
    # Storage on a network can serve several requests at once.
    read_concurrency = 4
    read_size = 4 * 1024 * 1024
    # Reading from the page cache is faster than this, from storage on a network slower.
    single_stream_rate = 1024 * 1024 * 1024

    _clients: "CinderClients"
    _host: "Host"
    _attachments: SharedAttachments

    def configure(self) -> None:
        lock_path = self.conf.get("lock_path")
        if not lock_path or not os.access(lock_path, os.W_OK | os.X_OK, effective_ids=True):
            raise self.misconfigured(
                "expected lock_path in [oslo_concurrency] as a directory that can be written to, "
                f"the same for all processes of this host; got {lock_path}"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the client libraries, while they are imported
            from store_lib.drivers.cinder.client import CinderClients
            from store_lib.drivers.cinder.host import Host
        self._clients = CinderClients(self.store_id, self.conf, self.retry)
        self._host = Host(
            lock_path=lock_path,
            helper_command=self.conf.get("helper_command"),
            rootwrap_config=self.conf.rootwrap_config,
            mount_base=self.conf.cinder_mount_point_base,
            multipath=self.conf.cinder_use_multipath,
            enforce_multipath=self.conf.cinder_enforce_multipath,
        )
        self._attachments = SharedAttachments()
        self._check_type()

    @property
    def url_prefix(self) -> str:
        """The beginning of new URIs, which glance_store's have too."""
        return f"cinder://{self._settings.uri_store or ''}"

    def id_problem(self, object_id: str) -> str | None:
        if len(object_id) > _LONGEST_ID:
            return f"it has more than {_LONGEST_ID} characters."
        if any(ord(character) > 0xFFFF for character in object_id):
            return "it has characters beyond U+FFFF, which Cinder's databases may not hold."
        return None

    def holds(self, location: CinderLocation) -> bool:
        """Return whether a URI names this store, by its id or a former one, or names no store."""
        named = location.store_id
        return named is None or named == self.store_id or self.conf.moved_from(named)

    def create(
        self, object_id: str, size: int | None, *, nonce: str, context: RequestContext | None
    ) -> VolumeWriter:
        upload = Upload(object_id, nonce, self._clients.project(context), self._host)
        return VolumeWriter(self._clients.get(context), upload, size or 0, self._settings)

    def read(
        self,
        location: CinderLocation,
        offset: int,
        length: int | None,
        *,
        context: RequestContext | None,
    ) -> Reader:
        """Open an object; attach its volume, or share the attachment of this process's readers.

        :raises NotFound: the object does not exist
        :raises BackendException: the volume is in use elsewhere, or its state does not allow it
        """
        self._attachments.retry_pending()
        cinder = self._clients.get(context)
        volume = _get_object(cinder, location)
        size = volume.object_size
        if offset > size:
            raise InvalidRange(size=size, offset=offset, length=length)
        attachment = self._attachments.acquire(
            Attachment(self._host, volume, "ro"), cinder, self._settings.attach_timeout
        )
        release = functools.partial(self._attachments.release, attachment, cinder)
        return VolumeReader(attachment, size, offset, length, release)

    def stat(self, location: CinderLocation, *, context: RequestContext | None) -> Stat:
        volume = _get_object(self._clients.get(context), location)
        return Stat(volume.object_size, volume.updated_at, dict(volume.metadata))

    def delete(self, location: CinderLocation, *, context: RequestContext | None) -> None:
        """Start deleting an object's volume; Cinder completes this after its response.

        :raises InUseByStore: the volume is attached
        :raises HasSnapshot: the volume has snapshots
        :raises Forbidden: the volume is not an image's, as a URI can name any volume
        """
        self._attachments.retry_pending()
        cinder = self._clients.get(context)
        volume = _get_object(cinder, location)
        if not volume.is_image:
            raise Forbidden(
                f"Volume {volume.id} was not deleted. Expected an image's volume, which is named "
                f"image-<id> and has that id in its metadata as {IMAGE_ID}; got one that does not "
                "agree. Restore these if it is an image's, else delete it in Cinder."
            )
        for _ in range(_DELETE_ATTEMPTS):
            try:
                return cinder.delete(volume.id)
            except BackendException as error:
                if not is_invalid_state(error):
                    raise
                refusal = error
            volume = _get_object(cinder, location)
            reason = _deletion_error(cinder, volume, refusal)
            # If there is no longer a reason for the refusal, a reader has ended meanwhile: repeat.
            if volume.status != "available" or type(reason) is not BackendException:
                break
        raise reason from refusal

    def list(self, *, context: RequestContext | None) -> Iterator[Entry]:
        """Yield the objects in volumes of this store's type."""
        for volume in self._volumes(self._clients.get(context)):
            object_id = volume.metadata.get(IMAGE_ID)
            if object_id and UPLOAD not in volume.metadata:
                location = CinderLocation(volume.id, self._settings.uri_store)
                yield Entry(object_id, location, volume.object_size, volume.updated_at)

    def list_incomplete(self, *, context: RequestContext | None) -> Iterator[Incomplete]:
        """Yield unfinished volumes of this store's type, and left-over attachments of objects."""
        self._attachments.retry_pending()
        self._host.locks.remove_dead()
        cinder = self._clients.get(context)
        cleanup = Cleanup(cinder, self._host)
        for volume in self._volumes(cinder):
            yield from cleanup.find(volume)

    def discard(self, incomplete: Incomplete, *, context: RequestContext | None) -> bool:
        """Remove an unfinished volume with its attachments, or an attachment."""
        return Cleanup(self._clients.get(context), self._host).discard(incomplete.key)

    def close(self) -> None:
        """Close this process's connections."""
        self._attachments.retry_pending()
        self._clients.close()

    def is_image_associated_with_store(
        self, context: RequestContext | None, volume_id: str
    ) -> bool:
        """Return whether the volume of an old URI has this store's volume type.  Never raises.

        Glance calls this on every store before it writes a store's id into the URI.
        """
        try:
            cinder = self._clients.get(context)
            return cinder.get(volume_id).volume_type == self._volume_type(cinder)
        except Exception as error:
            _LOG.info("Store %s: volume %s is not known: %s", self.store_id, volume_id, error)
            return False

    @property
    def _settings(self) -> Settings:
        return Settings.of(self.store_id, self.conf)

    def _check_type(self) -> None:
        name = self._settings.volume_type
        if not name or not self._clients.has_login:
            return
        try:
            known = self._clients.get(None).has_type(name)
        except StoreError as error:
            if error.status is ErrorStatus.PERMANENT:
                raise
            # Cinder may be started later.  If the type is missing then, adding an object fails.
            _LOG.warning("Store %s: the volume type is not checked: %s", self.store_id, error)
            return
        if not known:
            raise self.misconfigured(
                f"cinder_volume_type: Cinder has no volume type {name!r} for this project. "
                "Volumes can be read; name a type that there is to add some",
                readable=True,
            )

    def _volumes(self, cinder: "Cinder") -> Iterator[Volume]:
        """Yield the volumes of this store's volume type."""
        volume_type = self._volume_type(cinder)
        for volume in cinder.volumes():
            if volume.volume_type == volume_type and volume.status != "deleting":
                yield volume

    def _volume_type(self, cinder: "Cinder") -> str | None:
        return self._settings.volume_type or cinder.default_type()


def _deletion_error(cinder: "Cinder", volume: Volume, refusal: StoreError) -> StoreError:
    """Return the error for a volume that Cinder refused to delete because of its state."""
    if cinder.has_snapshots(volume.id):
        return HasSnapshot(
            f"Volume {volume.id} has snapshots and was not deleted. Delete them first."
        )
    if volume.hosts or volume.status in ATTACHED_STATES:
        text = _RESERVED if volume.status in ("reserved", "attaching") else _IN_USE
        return InUseByStore(text.format(volume.id, volume.status))
    return BackendException(
        f"Volume {volume.id} is in state {volume.status!r} and was not deleted. Wait until "
        "Cinder has ended what it is doing with it, or look for the reason in Cinder, and "
        f"reset its state there. ({refusal})"
    )


def _get_object(cinder: "Cinder", location: CinderLocation) -> Volume:
    """Return an object's volume.

    :raises NotFound: the volume does not exist, or its upload was never completed
    """
    return cinder.get(location.volume_id).check_object()
