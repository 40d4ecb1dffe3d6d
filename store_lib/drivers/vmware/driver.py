"""The vmware driver: its configuration, and its operations on objects."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from store_lib.clients.hosts import join_host, split_host
from store_lib.clients.http import HttpClient
from store_lib.clients.network_errors import OptionNames
from store_lib.clients.ranges import RangedReader
from store_lib.clients.tls import Tls
from store_lib.display import get_logger
from store_lib.driver import CreateOnly, Driver, Entry, Incomplete, Reader, Space, Stat
from store_lib.drivers.vmware.client import Session
from store_lib.drivers.vmware.folder import Folder, FolderFile
from store_lib.drivers.vmware.inventory import Inventory
from store_lib.drivers.vmware.location import (
    HTTPS,
    UPLOAD_PREFIX,
    VmwareLocation,
    id_problem,
    upload_name,
    uploaded_object_id,
)
from store_lib.drivers.vmware.options import (
    OPTIONS,
    Datastore,
    parse_datastores,
    parse_directory,
)
from store_lib.drivers.vmware.tasks import DatastoreFiles, File, TaskTimeouts
from store_lib.drivers.vmware.writer import VmwareWriter, duplicate_at
from store_lib.exceptions import (
    BadStoreConfiguration,
    BadStoreUri,
    ErrorStatus,
    NotFound,
    StoreError,
    not_found,
)

_LOG = get_logger(__name__)

_REQUIRED = ("vmware_server_host", "vmware_server_username", "vmware_server_password")


class VmwareDriver(Driver[VmwareLocation]):
    """Stores objects as files in a directory of datastores; see :doc:`/drivers/vmware`."""

    schemes: ClassVar[tuple[str, ...]] = VmwareLocation.schemes
    options = OPTIONS
    extra = "vmware"
    location_class: ClassVar[type[VmwareLocation]] = VmwareLocation
    create_only = CreateOnly.ATOMIC
    ranges = True

    #: The host and port in the URIs of this store.
    _server: tuple[str, int] = ("", HTTPS)
    _directory = ""
    _client: HttpClient | None = None
    _session: Session | None = None
    _inventory: Inventory
    _folder: Folder
    _files: DatastoreFiles

    def configure(self) -> None:
        """Check the options, log in, and look up the datastores.

        If the server does not respond, this is only logged, as it may respond later.

        :raises BadStoreConfiguration: an option is malformed, the login is refused, the server's
            certificate is not the right one, or a datastore does not exist
        """
        missing = [name for name in _REQUIRED if not self.conf[name]]
        if missing:
            raise self.misconfigured(f"expected {', '.join(missing)} to be set")
        # Imported here, so that the driver can be listed without oslo.vmware installed.
        from store_lib.drivers.vmware import soap

        try:
            datastores = self._parse_options()
            location = self.conf.vmware_wsdl_location
            wsdl = soap.wsdl_url(location) if location else None
        except ValueError as error:
            raise self.misconfigured(str(error)) from None
        self._client = self._make_client()
        transport = soap.SoapTransport(self._client, f"https://{join_host(*self._server, HTTPS)}")
        self._session = Session(
            self._client,
            transport,
            lambda: soap.Api(transport, wsdl),
            self.conf.vmware_server_username,
            self.conf.vmware_server_password,
        )
        self._folder = Folder(self._client, self._session)
        self._inventory = Inventory(self.store_id, self._session, datastores)
        timeouts = TaskTimeouts(
            self.conf.vmware_task_poll_interval,
            self.conf.vmware_task_timeout,
            self.conf.vmware_api_retry_count,
        )
        self._files = DatastoreFiles(self._session, self._inventory, self._directory, timeouts)
        if len(datastores) > 1:
            self.create_only = CreateOnly.CHECKED
        try:
            self._check_inventory()
        except BadStoreConfiguration as error:
            if not error.readable:
                self.close()  # end the session, if one was begun
            raise

    def owns(self, location: VmwareLocation) -> bool:
        """Return whether a URI leads to this store's server and directory."""
        return self._is_here(location) and id_problem(location.name) is None

    def create(self, object_id: str, size: int | None, *, nonce: str, context: Any) -> VmwareWriter:
        """Begin an upload to the datastore with the highest weight that has space for it.

        :raises Duplicate: an object with this id exists on one of the datastores
        :raises StorageFull: no datastore has space for ``size`` bytes
        """
        for datastore in self._inventory.datastores:
            location = self._location(datastore, object_id)
            # This also checks the login before the upload begins.
            if self._folder.stat(location.target) is not None:
                raise duplicate_at(location)
        datastore = self._inventory.choose(size)
        self._files.create_directory(datastore)
        return VmwareWriter(
            self._folder,
            self._files,
            self._location(datastore, object_id),
            upload_name(object_id, nonce),
            [other for other in self._inventory.datastores if other != datastore],
        )

    def read(
        self, location: VmwareLocation, offset: int, length: int | None, *, context: Any
    ) -> Reader:
        self._check(location)
        return RangedReader(FolderFile(self._folder, location), offset, length)

    def stat(self, location: VmwareLocation, *, context: Any) -> Stat:
        self._check(location)
        stat = self._folder.stat(location.target)
        if stat is None:
            raise not_found(location.uri)
        return stat

    def delete(self, location: VmwareLocation, *, context: Any) -> None:
        self._check(location)
        try:
            self._files.delete(location.datastore, location.name)
        except NotFound as error:
            raise not_found(location.uri, error.msg.rstrip(".")) from None

    def list(self, *, context: Any) -> Iterator[Entry]:
        for datastore in self._inventory.datastores:
            for file in self._search(datastore, "*"):
                if id_problem(file.name) is None:
                    location = self._location(datastore, file.name)
                    yield Entry(file.name, location, file.size, file.modified)

    def list_incomplete(self, *, context: Any) -> Iterator[Incomplete]:
        """Yield the files of all uploads, as the server cannot say which uploads still run."""
        for datastore in self._inventory.datastores:
            for file in self._search(datastore, f"{UPLOAD_PREFIX}*"):
                object_id = uploaded_object_id(file.name)
                if object_id is not None:
                    key, now = self._location(datastore, file.name).uri, self._files.now
                    # A file whose time is unknown counts as a running upload's.
                    modified, live = (
                        (now, True) if file.modified is None else (file.modified, False)
                    )
                    yield Incomplete(key, object_id, file.size, modified, live, now)

    def discard(self, incomplete: Incomplete, *, context: Any) -> bool:
        location = VmwareLocation.parse(incomplete.key)
        if not self._is_here(location) or uploaded_object_id(location.name) is None:
            raise self.unknown_upload(incomplete.key)
        try:
            self._files.delete(location.datastore, location.name)
        except NotFound:
            return False
        return True

    def space(self, *, context: Any) -> Space:
        return self._inventory.space()

    @property
    def url_prefix(self) -> str:
        host = join_host(*self._server, HTTPS)
        return f"vsphere://{host}/folder/{self._directory}/"

    def id_problem(self, object_id: str) -> str | None:
        return id_problem(object_id)

    def close(self) -> None:
        """Log out, and close this process's connections."""
        if self._session is not None:
            self._session.end()
        if self._client is not None:
            self._client.close()

    def _parse_options(self) -> Sequence[Datastore]:
        """Set the server and the directory, and return the datastores.

        :raises ValueError: an option is malformed
        """
        datastores = parse_datastores(self.conf.vmware_datastores or ())
        self._directory = parse_directory(self.conf.vmware_store_image_dir)
        host = self.conf.vmware_server_host.strip()
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"  # an IPv6 address without brackets, as glance_store allows
        try:
            self._server = split_host(host, HTTPS)
        except ValueError as error:
            raise ValueError(
                f"vmware_server_host: expected {error}, got {self.conf.vmware_server_host!r}"
            ) from None
        return datastores

    def _make_client(self) -> HttpClient:
        tls = Tls(
            self.store_id,
            self.conf,
            authorities="vmware_ca_file",
            insecure="vmware_insecure",
            peers="the vSphere server",
        )
        return HttpClient(
            tls,
            OptionNames("vmware_ca_file", "vmware_connect_timeout", "vmware_read_timeout"),
            connect_timeout=self.conf.vmware_connect_timeout,
            read_timeout=self.conf.silence("vmware_read_timeout"),
        )

    def _check_inventory(self) -> None:
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

    def _is_here(self, location: VmwareLocation) -> bool:
        server = (location.host, location.port)
        return location.directory == self._directory and (
            server == self._server or self.conf.moved_from(join_host(*server, HTTPS))
        )

    def _check(self, location: VmwareLocation) -> None:
        if not self.owns(location):
            raise BadStoreUri(
                f"Expected a URI of store {self.store_id}, which begins with {self.url_prefix} and "
                "names an object, got %(uri)s. Nothing is asked of other servers, and nothing "
                "outside of the store's directory.",
                uri=location.uri,
            )

    def _search(self, datastore: Datastore, pattern: str) -> Sequence[File]:
        return self.retry(functools.partial(self._files.search, datastore, pattern))

    def _location(self, datastore: Datastore, name: str) -> VmwareLocation:
        return VmwareLocation(*self._server, self._directory, name, datastore)
