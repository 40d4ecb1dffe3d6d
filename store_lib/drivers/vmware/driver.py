"""The vmware driver: its configuration, and what it does with objects."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from store_lib.clients.hosts import join_host, split_host
from store_lib.clients.ranges import RangedReader
from store_lib.clients.tls import Tls
from store_lib.display import get_logger
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, Reader, Space, Stat
from store_lib.drivers.vmware import names
from store_lib.drivers.vmware.folder import Folder
from store_lib.drivers.vmware.inventory import Inventory
from store_lib.drivers.vmware.location import HTTPS, VmwareLocation
from store_lib.drivers.vmware.options import OPTIONS, Place, parse_datastores, parse_directory
from store_lib.drivers.vmware.reader import FolderFile
from store_lib.drivers.vmware.session import Session
from store_lib.drivers.vmware.tasks import File, Files, Patience
from store_lib.drivers.vmware.wire import Wire
from store_lib.drivers.vmware.writer import Upload, duplicate
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    DriverLoadFailure,
    ErrorStatus,
    Invalid,
    NotFound,
    StoreError,
)
from store_lib.location import Location

_LOG = get_logger(__name__)

_REQUIRED = ("vmware_server_host", "vmware_server_username", "vmware_server_password")


class VmwareDriver(Driver[VmwareLocation]):
    """Objects are files in a directory of datastores; see :doc:`/drivers/vmware`."""

    schemes: ClassVar[tuple[str, ...]] = VmwareLocation.schemes
    options = OPTIONS
    location_class: ClassVar[type[Location]] = VmwareLocation
    create_only = CreateOnly.ATOMIC
    ranges = True

    #: Host and port as URIs of this store have them.
    _server: tuple[str, int] = ("", HTTPS)
    _directory = ""
    _wire: Wire
    _session: Session
    _inventory: Inventory
    _folder: Folder
    _files: Files

    def configure(self) -> None:
        """Check the options, log in, and look the datastores up.

        A server that does not answer now may do so later: that is logged alone.

        :raises BadStoreConfiguration: an option is no good, the login is refused, the server's
            certificate is not the right one, or a datastore is not there
        """
        missing = [name for name in _REQUIRED if not self.conf[name]]
        if missing:
            raise self.misconfigured(f"expected {', '.join(missing)} to be set")
        try:
            # Imported here, so that the driver can be told of without it.
            from store_lib.drivers.vmware import soap
        except ImportError as error:
            raise DriverLoadFailure(
                driver_name="vmware",
                reason=f"it needs oslo.vmware ({error}). Install it: pip install store_lib[vmware]",
            ) from error
        try:
            places = self._configure_offline()
            location = self.conf.vmware_wsdl_location
            wsdl = soap.wsdl_url(location) if location else None
        except ValueError as error:
            raise self.misconfigured(str(error)) from None
        self._session = Session(
            self._wire,
            self.conf.vmware_server_username,
            self.conf.vmware_server_password,
            lambda post: soap.Api(self._wire, post, wsdl),
        )
        self._folder = Folder(self._wire, self._session)
        self._inventory = Inventory(self.store_id, self._session, places)
        patience = Patience(
            self.conf.vmware_task_poll_interval,
            self.conf.vmware_task_timeout,
            self.conf.vmware_api_retry_count,
        )
        self._files = Files(self._session, self._inventory, self._directory, patience)
        if len(places) > 1:
            self.create_only = CreateOnly.CHECKED
        try:
            self._look()
        except BadStoreConfiguration as error:
            if not error.readable:
                self.close()  # nobody will use the session that may have been begun
            raise

    def _configure_offline(self) -> list[Place]:
        """Take in what needs no server.

        :raises ValueError: an option is no good
        """
        places = parse_datastores(self.conf.vmware_datastores or ())
        self._directory = parse_directory(self.conf.vmware_store_image_dir)
        try:
            host = self.conf.vmware_server_host.strip()
            if host.count(":") > 1 and not host.startswith("["):
                host = f"[{host}]"  # an IPv6 address by itself, as glance_store's option had it
            self._server = split_host(host, HTTPS)
        except ValueError as error:
            raise ValueError(
                f"vmware_server_host: expected {error}, got {self.conf.vmware_server_host!r}"
            ) from None
        self._wire = Wire(
            *self._server,
            Tls(
                self.store_id,
                self.conf,
                authorities="vmware_ca_file",
                insecure="vmware_insecure",
                peers="the vSphere server",
            ),
            connect_timeout=self.conf.vmware_connect_timeout,
            read_timeout=self.conf.silence("vmware_read_timeout"),
        )
        return places

    def _look(self) -> None:
        try:
            self._inventory.check()
        except BadStoreConfiguration:
            raise
        except StoreError as error:
            if error.status is not ErrorStatus.TEMPORARY:
                raise self.misconfigured(str(error)) from error
            _LOG.warning(
                "Store %s: its datastores could not be looked up yet: %s", self.store_id, error
            )

    @property
    def url_prefix(self) -> str:
        """What the URIs of this store begin with."""
        host = join_host(*self._server, HTTPS)
        return f"vsphere://{host}/folder/{self._directory}/"

    def id_problem(self, object_id: str) -> str | None:
        return names.refusal(object_id)

    def owns(self, location: Location) -> bool:
        """Tell whether ``location`` is on this store's server and in its directory."""
        assert isinstance(location, VmwareLocation), type(location)
        server = (location.host, location.port)
        return location.directory == self._directory and (
            server == self._server or self.conf.moved_from(join_host(*server, HTTPS))
        )

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> Upload:
        """Begin an upload on the datastore that is to have it.

        :raises Duplicate: an object of this id is there, on any of the datastores
        :raises StorageFull: ``size`` fits on none of them
        """
        for place in self._inventory.places:
            location = self._location(place, object_id)
            # This also makes sure of a good login, while nothing is under way yet.
            if self._folder.stat(location.target) is not None:
                raise duplicate(location)
        place = self._inventory.choose(size)
        self._files.make_directory(place)
        return Upload(
            self._folder,
            self._files,
            self._location(place, object_id),
            names.upload_name(object_id, nonce),
            [each for each in self._inventory.places if each != place],
        )

    def read(self, location: Location, offset: int, length: int | None, *, context: Any) -> Reader:
        """Open an object by a GET, with a Range where part of it is wanted.

        :raises BadStoreUri: it is none of this store's
        """
        place = self._checked(location)
        return RangedReader(FolderFile(self._folder, place, self._wire.server), offset, length)

    def stat(self, location: Location, *, context: Any) -> Stat:
        """Ask for size and time by a HEAD."""
        place = self._checked(location)
        found = self._folder.stat(place.target)
        if found is None:
            raise NotFound(f"There is no object at {place.uri}")
        return found

    def delete(self, location: Location, *, context: Any) -> None:
        """Delete an object's file.

        :raises InUseByStore: something on the datastore uses it
        """
        place = self._checked(location)
        self._files.delete(place.place, place.name)

    def list(self, *, context: Any) -> Iterator[Entry]:
        """Yield the objects on the configured datastores."""
        for place in self._inventory.places:
            for file in self._found(place, "*"):
                if names.refusal(file.name) is None:
                    location = self._location(place, file.name)
                    yield Entry(file.name, location, file.size, file.modified)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        """Yield the files of uploads; what is still at work cannot be told from what is not."""
        for place in self._inventory.places:
            for file in self._found(place, f"{names.UPLOAD_PREFIX}*"):
                object_id = names.uploaded_object_id(file.name)
                if object_id is not None:
                    key, now = self._location(place, file.name).uri, self._session.now
                    # What has no time is taken for alive.
                    modified, live = (
                        (now, True) if file.modified is None else (file.modified, False)
                    )
                    yield Incomplete(key, object_id, file.size, modified, live, now)

    def _found(self, place: Place, pattern: str) -> Sequence[File]:
        return self.retry(functools.partial(self._files.search, place, pattern))

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        """Delete an upload's file, which has another name once it is published."""
        location = VmwareLocation.parse(incomplete.key)
        if not self.owns(location) or names.uploaded_object_id(location.name) is None:
            raise Invalid(
                f"Expected the key of an upload of store {self.store_id}, got {incomplete.key!a}. "
                "Take it from a listing of this store."
            )
        try:
            self._files.delete(location.place, location.name)
        except NotFound:
            return False
        return True

    def space(self, *, context: Any) -> Space:
        """Return the room of all configured datastores that are accessible."""
        return self._inventory.space()

    def close(self) -> None:
        """Log out, and close this process's connections."""
        if hasattr(self, "_session"):
            self._session.end()
        if hasattr(self, "_wire"):
            self._wire.close()

    def _location(self, place: Place, name: str) -> VmwareLocation:
        return VmwareLocation(*self._server, self._directory, name, place)

    def _checked(self, location: Location) -> VmwareLocation:
        assert isinstance(location, VmwareLocation), type(location)
        if not self.owns(location) or names.refusal(location.name) is not None:
            raise BadStoreUri(
                f"Expected a URI of store {self.store_id}, which begins with {self.url_prefix} and "
                "names an object, got %(uri)s. Nothing is asked of other servers, and nothing "
                "outside of the store's directory.",
                uri=location.uri,
            )
        return location
