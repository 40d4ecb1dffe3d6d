"""The connection to a cluster: one per process and store, opened on first use and reopened."""

import contextlib
import errno
import json
import struct
import uuid
from collections.abc import Iterator
from typing import Any

from store_lib.clients.process import LiveObjects, SingleFlight
from store_lib.display import get_logger
from store_lib.driver import Space
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.errors import SHUT_OUT, errno_of, translate, translated
from store_lib.drivers.rbd.options import ConnectionSettings
from store_lib.exceptions import (
    AuthorizationFailure,
    BadStoreConfiguration,
    MissingCredentialError,
    NotFound,
    StoreError,
    TimeoutError,
)

LOG = get_logger(__name__)

#: What librados returns if the configuration has no fsid.
_NO_FSID = "00000000-0000-0000-0000-000000000000"

#: Ceph's option for a separate pool for data.  A pool's metadata may contain it, too.
_DATA_POOL = "rbd_default_data_pool"

#: The header of an empty image, as arguments of Ceph's class ``rbd``: size, order, features and
#: prefix of object names.
_HEADER = struct.pack("<QBQI1s", 0, 22, 0, 1, b"-")


class Cluster:
    """One store's connection to its cluster and the open pools.  Safe for use by many threads.

    :raises BadStoreConfiguration: Ceph's configuration file is missing or malformed
    """

    def __init__(self, store_id: str, settings: ConnectionSettings) -> None:
        self.store_id = store_id
        self._settings = settings
        self._opening = SingleFlight()
        self._pools: dict[str, Any] = {}
        self._rados: Any = None
        #: Pools and connections of a client that was shut out; calls may still be running in them.
        self._retired: list[Any] = []
        fsid = self._prepare().conf_get("fsid")
        #: The cluster's id; ``None`` if not configured and not yet connected.
        self.known_fsid: str | None = None if fsid in (None, "", _NO_FSID) else fsid
        _CLUSTERS.add(self)

    @property
    def fsid(self) -> str:
        """The cluster's id.  Connects if it is not configured."""
        return self.known_fsid or str(self._connection().get_fsid())

    def pool(self, name: str) -> Any:
        """Return the open pool ``name``, an ``Ioctx``.

        :raises NotFound: another store's pool does not exist
        :raises BadStoreConfiguration: the store's own pool does not exist
        """
        connection = self._connection()
        with self._opening.lock:
            ioctx = self._pools.get(name)
            if ioctx is None:
                try:
                    with self.calling(f"open the pool {name!r}"):
                        ioctx = connection.open_ioctx(name)
                        bindings.register(ioctx, ioctx.close, connection)
                        # In a full pool writes fail instead of waiting for room, while reading
                        # and deleting, which write a little as well, go on.
                        ioctx.set_osdmap_full_try()
                    self._pools[name] = ioctx
                except NotFound as error:
                    if name != self._settings.pool:
                        raise
                    raise BadStoreConfiguration(
                        store_name=self.store_id,
                        reason=f"rbd_store_pool: expected a pool of the cluster, got {name!r}, "
                        "which does not exist.",
                    ) from error
            return ioctx

    @contextlib.contextmanager
    def calling(self, action: str, image: str | None = None) -> Iterator[None]:
        """Make calls to Ceph in a ``with`` block, with their errors translated.

        A connection that the cluster has shut out is dropped.

        :param action: for the message; see :func:`~store_lib.drivers.rbd.errors.translated`
        """
        with bindings.calling(), translated(action, image, on_error=self._check_connection):
            yield

    @contextlib.contextmanager
    def using(self, native: Any, action: str, image: str) -> Iterator[None]:
        """Make calls to a handle, which stays open until the block ends even if it is released.

        :raises BackendException: it is closed, or was opened before a fork
        """
        with self.calling(action, image), bindings.using(native):
            yield

    def data_pool(self, pool: str) -> str:
        """Return the pool in which librbd puts the data of new images of ``pool``."""
        ioctx = self.pool(pool)
        with self.calling("ask for a pool's settings"):
            with contextlib.suppress(KeyError):
                name: str = bindings.rbd.RBD().pool_metadata_get(ioctx, f"conf_{_DATA_POOL}")
                return name or pool
            return str(self._connection().conf_get(_DATA_POOL) or pool)

    def now(self, pool: str) -> float:
        """Return the time of an OSD, whose clock sets the timestamps of images.

        A plain RADOS object's timestamp comes from the client, so this creates a temporary image
        header and reads its creation time.
        """
        ioctx = self.pool(pool)
        name = f"store_lib-clock-{uuid.uuid4().hex}"
        with self.calling("ask for the time"):
            try:
                ioctx.execute(name, "rbd", "create", _HEADER)
                _, stamp = ioctx.execute(name, "rbd", "get_create_timestamp", b"")
            finally:
                with contextlib.suppress(bindings.rados.Error):
                    ioctx.remove_object(name)
        seconds, nanoseconds = struct.unpack_from("<II", stamp)
        return float(seconds + nanoseconds / 1e9)

    def space(self, pool: str) -> Space:
        """Return the space in a pool within its quota.  The monitors' figures lag a little."""
        with self.calling("ask for the cluster's statistics"):
            command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
            status, answer, complaint = self._connection().mon_command(command, b"")
        if status:
            error = bindings.rados.Error(f"{errno.errorcode.get(-status, status)}: {complaint}")
            raise translate(error, -status, "ask for the cluster's statistics", None)
        pools = {entry["name"]: entry["stats"] for entry in json.loads(answer)["pools"]}
        if (stats := pools.get(pool)) is None:
            self.pool(pool)
            return Space(None, None)  # the monitors do not know a new pool yet
        free = int(stats["max_avail"])
        total = int(stats["stored"]) + free
        if quota := int(stats.get("quota_bytes", 0)):
            free = max(0, min(free, quota - int(stats["stored"])))
            total = min(total, quota)
        return Space(total, free)

    def close(self) -> None:
        """Shut the connection down.  The next use opens a new one."""
        with self._opening.lock:
            self._retire()
            retired, self._retired = self._retired, []
        for native in retired:
            bindings.release(native)

    def _retire(self) -> None:
        self._retired += self._pools.values()
        if self._rados is not None:
            self._retired.append(self._rados)
        self._rados, self._pools = None, {}

    def _check_connection(self, number: int | None) -> None:
        if number not in SHUT_OUT:
            return
        LOG.warning("Store %s: the connection to Ceph is dead; opening a new one", self.store_id)
        self._retire()

    def _connection(self) -> Any:
        """Return the connection, opening it if there is none."""
        return self._opening.run(lambda: self._rados, self._connect)

    def _prepare(self) -> Any:
        """Return a connection that is configured but not open."""
        settings = self._settings
        try:
            # An empty name makes librados search for a file.
            new = bindings.rados.Rados(conffile=settings.conf_file, rados_id=settings.user)
        except bindings.rados.Error as error:
            raise BadStoreConfiguration(
                store_name=self.store_id,
                reason="expected a Ceph configuration file, got an error from "
                f"{settings.conf_file or 'the places where librados looks for one'}: {error}",
                store=self.store_id,
            ) from error
        # Writes are then complete when they return.  Nothing here reads a byte twice.
        new.conf_set("rbd_cache", "false")
        if settings.connect_timeout >= 0:
            new.conf_set("client_mount_timeout", str(settings.connect_timeout))
        for option in ("rados_osd_op_timeout", "rados_mon_op_timeout"):
            if settings.operation_timeout and float(new.conf_get(option) or 0) == 0:
                new.conf_set(option, str(settings.operation_timeout))
        return new

    def _connect(self) -> Any:
        new = self._prepare()
        try:
            new.connect()
        except bindings.rados.Error as error:
            failure = self._connect_error(new, error)
            new.shutdown()  # now: the error keeps it alive, and it must not be destroyed in a child
            try:
                raise failure from error
            finally:
                del failure  # its traceback refers to this frame: the cycle would keep memory
        self.known_fsid = new.get_fsid()
        self._rados = bindings.register(new, new.shutdown)
        return self._rados

    def _connect_error(self, new: Any, error: Exception) -> StoreError:
        number = errno_of(error)
        user = f"client.{self._settings.user or 'admin'}"
        keyring = new.conf_get("keyring")
        if number in (errno.EACCES, errno.EPERM):
            return AuthorizationFailure(
                f"The cluster refuses {user}: {error}. Check rbd_store_user, and this user's key "
                f"in the keyring that the Ceph configuration names ({keyring})."
            )
        if number in (errno.ENOENT, errno.EINVAL, errno.EIO):
            return MissingCredentialError(
                f"No usable key for {user}: {error}. Check that the keyring that the Ceph "
                f"configuration names ({keyring}) exists, can be read, and holds this user."
            )
        if number == errno.ETIMEDOUT:
            return TimeoutError(
                f"No monitor answered within {new.conf_get('client_mount_timeout')} s "
                f"(rados_connect_timeout) at {new.conf_get('mon_host') or 'no known address'}. "
                "Check mon_host, the network and the cluster's health."
            )
        return translate(error, number, "connect to the cluster", None)

    def _after_fork(self) -> None:
        """Forget the parent's connection, which a child must not touch."""
        self._opening = SingleFlight()
        self._pools, self._retired, self._rados = {}, [], None


_CLUSTERS: LiveObjects[Cluster] = LiveObjects(in_child=Cluster._after_fork)
