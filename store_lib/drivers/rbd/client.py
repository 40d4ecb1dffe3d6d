"""The connection to a cluster: one for each process and store, made lazily and re-made."""

import contextlib
import dataclasses
import errno
import json
import os
import struct
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

from store_lib.display import get_logger
from store_lib.driver import Space
from store_lib.drivers.rbd import bindings
from store_lib.drivers.rbd.errors import DEAD, number_of, translate, translated
from store_lib.exceptions import (
    AuthorizationFailure,
    BadStoreConfiguration,
    MissingCredentialError,
    NotFound,
    StoreError,
    TimeoutError,
)

LOG = get_logger(__name__)

#: What librados says where the configuration has no fsid.
_NO_FSID = "00000000-0000-0000-0000-000000000000"

#: Ceph's option that names a separate pool for data; pools may have it too, in their metadata.
_DATA_POOL = "rbd_default_data_pool"

#: What makes the header of an image without content: its size, order, features, and the names of
#: its objects, as Ceph's class ``rbd`` takes them.
_HEADER = struct.pack("<QBQI1s", 0, 22, 0, 1, b"-")


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to reach a cluster.

    :param pool: the store's own
    :param user: without ``client.``; ``None`` for librados' own choice
    :param conf_file: ``""`` for librados' own search
    :param connect_timeout: seconds; 0 for no limit, negative for what the Ceph configuration says
    :param operation_timeout: seconds that one operation may take where the Ceph configuration
        sets no limit; 0 for none
    """

    pool: str
    user: str | None
    conf_file: str
    connect_timeout: int
    operation_timeout: int


class Cluster:
    """A cluster as one store sees it; for many threads at once."""

    def __init__(self, store_id: str, access: Access) -> None:
        """
        :raises BadStoreConfiguration: there is no such configuration file, or it is malformed
        """
        self._store_id = store_id
        self._access = access
        self._made = threading.Lock()
        self._pools: dict[str, Any] = {}
        self._rados: Any = None
        #: Pools and connections that the cluster has shut out; calls may still be in them.
        self._retired: list[Any] = []
        self._failure: tuple[float, StoreError] | None = None
        fsid = self._prepare().conf_get("fsid")
        #: The cluster's id: what the configuration says, or else the cluster once connected.
        self.known_fsid: str | None = None if fsid in (None, "", _NO_FSID) else fsid
        _ALL.add(self)

    @property
    def fsid(self) -> str:
        """The cluster's id; connects where the configuration does not tell it."""
        return self.known_fsid or str(self._connected().get_fsid())

    def pool(self, name: str) -> Any:
        """Return the open pool ``name``, an ``Ioctx``.

        :raises NotFound: there is no such pool, and it is not the store's own
        :raises BadStoreConfiguration: it is
        """
        cluster = self._connected()
        with self._made:
            found = self._pools.get(name)
            if found is None:
                try:
                    with self.calling(f"open the pool {name!r}"):
                        found = cluster.open_ioctx(name)
                        bindings.keep(found, found.close, cluster)
                        # In a full pool writes fail instead of waiting for room, while reading
                        # and deleting, which write a little as well, go on.
                        found.set_osdmap_full_try()
                    self._pools[name] = found
                except NotFound as error:
                    if name != self._access.pool:
                        raise
                    raise BadStoreConfiguration(
                        store_name=self._store_id,
                        reason=f"rbd_store_pool: expected a pool of the cluster, got {name!r}, "
                        "which does not exist.",
                    ) from error
            return found

    @contextlib.contextmanager
    def calling(self, doing: str, image: str | None = None) -> Iterator[None]:
        """Announce calls, translate their errors, and forget the connection when it is dead."""
        with bindings.calling(), translated(doing, image, notice=self._notice):
            yield

    @contextlib.contextmanager
    def using(self, native: Any, doing: str, image: str) -> Iterator[None]:
        """Do the same, and keep what is used open meanwhile, whoever closes it.

        :raises BackendException: it is closed, or was opened before a fork
        """
        with self.calling(doing, image), bindings.using(native):
            yield

    def data_pool(self, pool: str) -> str:
        """Return the pool that the data of new images in ``pool`` goes to, as librbd chooses it."""
        ioctx = self.pool(pool)
        with self.calling("ask for a pool's settings"):
            with contextlib.suppress(KeyError):
                chosen: str = bindings.rbd.RBD().pool_metadata_get(ioctx, f"conf_{_DATA_POOL}")
                return chosen or pool
            return str(self._connected().conf_get(_DATA_POOL) or pool)

    def now(self, pool: str) -> float:
        """Return the time by the clock that gives images their timestamps: an OSD's.

        The time of a fresh RADOS object would not do: it is the client's.  So it is made as the
        header of an image, and asked when that was.
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
        """Tell of the room in a pool within its quota; the monitors know it a little late."""
        with self.calling("ask for the cluster's statistics"):
            command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
            status, answer, complaint = self._connected().mon_command(command, b"")
        if status:
            error = bindings.rados.Error(f"{errno.errorcode.get(-status, status)}: {complaint}")
            raise translate(error, -status, "ask for the cluster's statistics", None)
        pools = {each["name"]: each["stats"] for each in json.loads(answer)["pools"]}
        if (stats := pools.get(pool)) is None:
            self.pool(pool)
            return Space(None, None)  # the monitors have yet to hear of a new pool
        free = int(stats["max_avail"])
        total = int(stats["stored"]) + free
        if quota := int(stats.get("quota_bytes", 0)):
            free = max(0, min(free, quota - int(stats["stored"])))
            total = min(total, quota)
        return Space(total, free)

    def close(self) -> None:
        """Shut the connection down; the next use makes a new one."""
        with self._made:
            self._retire()
            retired, self._retired = self._retired, []
        for each in retired:
            bindings.release(each)

    def _retire(self) -> None:
        self._retired += self._pools.values()
        if self._rados is not None:
            self._retired.append(self._rados)
        self._rados, self._pools = None, {}

    def _notice(self, number: int | None) -> None:
        if number not in DEAD:
            return
        LOG.warning("Store %s: the connection to Ceph is dead; making a new one", self._store_id)
        self._retire()

    def _connected(self) -> Any:
        """Return the connection, made now if there is none.

        Who waits for another thread's attempt shares its failure, instead of waiting as long
        once more.
        """
        found = self._rados
        if found is not None:
            return found
        came = time.monotonic()
        with self._made:
            if self._rados is None:
                if self._failure is not None and self._failure[0] > came:
                    error = self._failure[1]
                    raise type(error)(error.msg, status=error.status)
                try:
                    self._rados = self._connect()
                except StoreError as error:
                    self._failure = time.monotonic(), error
                    raise
            return self._rados

    def _prepare(self) -> Any:
        """Return a connection that has its configuration, and is not made yet."""
        access = self._access
        try:
            # An empty name makes librados search by itself.
            new = bindings.rados.Rados(conffile=access.conf_file, rados_id=access.user)
        except bindings.rados.Error as error:
            raise BadStoreConfiguration(
                store_name=self._store_id,
                reason="expected a Ceph configuration file, got an error from "
                f"{access.conf_file or 'the places where librados looks for one'}: {error}",
                store=self._store_id,
            ) from error
        # Writes are complete when they return, and nothing here reads a byte twice.
        new.conf_set("rbd_cache", "false")
        if access.connect_timeout >= 0:
            new.conf_set("client_mount_timeout", str(access.connect_timeout))
        for option in ("rados_osd_op_timeout", "rados_mon_op_timeout"):
            if access.operation_timeout and float(new.conf_get(option) or 0) == 0:
                new.conf_set(option, str(access.operation_timeout))
        return new

    def _connect(self) -> Any:
        new = self._prepare()
        try:
            new.connect()
        except bindings.rados.Error as error:
            refused = self._refused(new, error)
            new.shutdown()  # here and now: the error keeps it alive, and it must not end in a child
            try:
                raise refused from error
            finally:
                del refused  # with its traceback it would keep this frame, and the callers' memory
        self.known_fsid = new.get_fsid()
        return bindings.keep(new, new.shutdown)

    def _refused(self, new: Any, error: Exception) -> StoreError:
        number = number_of(error)
        user = f"client.{self._access.user or 'admin'}"
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
        """In the child: nothing of the parent's connection may be touched."""
        self._made = threading.Lock()
        self._pools, self._retired, self._rados, self._failure = {}, [], None, None


_ALL: "weakref.WeakSet[Cluster]" = weakref.WeakSet()


def _after_fork() -> None:
    for cluster in list(_ALL):
        cluster._after_fork()


os.register_at_fork(after_in_child=_after_fork)
