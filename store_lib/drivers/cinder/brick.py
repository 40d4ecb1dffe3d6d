"""os-brick made ready in this process: its locks, its privileges, what it tells of this host."""

import contextlib
import logging
import os
import shlex
import shutil
import socket
import threading
from collections.abc import Mapping
from typing import Any

from os_brick import privileged
from os_brick.initiator import connector
from os_brick.privileged import rootwrap
from oslo_config import cfg
from oslo_privsep import priv_context

from store_lib.clients.process import PerProcess
from store_lib.drivers.cinder.locks import LockFile, remove_dead
from store_lib.drivers.cinder.volume import PLACE

# What os-brick warns of, such as that this host has no iSCSI, is for logs where there are some, and
# not for a service's standard error.
logging.getLogger("os_brick").addHandler(logging.NullHandler())

#: os-brick's ways to root's rights; older versions have the first alone.
_CONTEXTS = [
    getattr(privileged, name)
    for name in ("default", "brick_privsep_hide_output")
    if hasattr(privileged, name)
]


def _forked() -> None:
    """Forget a helper's channel that was inherited: nobody here reads its answers.

    It is closed, not shut down, which would end the parent's helper.
    """
    for context in _CONTEXTS:
        channel, context.channel = context.channel, None
        context.start_lock = threading.Lock()
        with contextlib.suppress(Exception):
            channel.writer.writesock.close()


os.register_at_fork(after_in_child=_forked)


class Host:
    """This host, as far as volumes are attached to it.

    :param lock_path: directory for locks, the same for all processes of the host
    :param helper_command: starts os-brick's helper as root; ``None`` for os-brick's own default
    :param rootwrap_config: glance-rootwrap's configuration, for that default
    :param mount_base: directory for mounts
    """

    def __init__(
        self,
        *,
        lock_path: str,
        helper_command: str | None,
        rootwrap_config: str,
        mount_base: str,
        multipath: bool,
        enforce_multipath: bool,
    ) -> None:
        self.name = socket.gethostname()
        self.mount_base = mount_base
        self._lock_path = lock_path
        self._multipath = multipath
        self._enforce_multipath = enforce_multipath
        self._properties: PerProcess[dict[str, Any]] = PerProcess(self._ask_properties)
        self.root_helper = f"sudo glance-rootwrap {rootwrap_config}"
        cfg.CONF.set_default("lock_path", lock_path, group="os_brick")
        #: What os-brick's helper is started with; empty where none is needed.
        self.helper = self._take_privileges(helper_command)

    def _take_privileges(self, command: str | None) -> str:
        given = cfg.CONF.privsep_osbrick.helper_command or command
        if given:
            cfg.CONF.set_default("helper_command", given, group="privsep_osbrick")
            return given
        if os.geteuid() == 0:
            # What needs root's rights runs right here, without a helper to start.
            for context in _CONTEXTS:
                context.set_client_mode(False)
            return ""
        if shutil.which("glance-rootwrap"):
            priv_context.init(root_helper=shlex.split(self.root_helper))
            return f"{self.root_helper} privsep-helper"
        return "sudo privsep-helper"

    def lock(self, name: str) -> LockFile:
        """Return the lock of a thing on this host."""
        return LockFile(self._lock_path, name)

    def volume_lock(self, volume_id: str) -> LockFile:
        """Return the lock of whoever brings a volume here or takes it away."""
        return self.lock(f"volume-{volume_id}")

    def attachment_lock(self, attachment_id: str) -> LockFile:
        """Return the lock that a process holds as long as it uses an attachment."""
        return self.lock(f"attachment-{attachment_id}")

    def remove_dead_locks(self) -> None:
        """Remove what killed processes have left of their locks."""
        remove_dead(self._lock_path)

    def properties(self) -> Mapping[str, Any]:
        """Return what Cinder needs to know to make a volume reachable from here."""
        return self._properties.get()

    def forget_properties(self) -> None:
        """Have them asked for anew: they did not serve, and a service may have been started."""
        self._properties.take()

    def _ask_properties(self) -> dict[str, Any]:
        found = connector.get_connector_properties(
            self.root_helper,
            _address(self.name),
            self._multipath,
            self._enforce_multipath,
            host=self.name,
        )
        return {**found, "mountpoint": PLACE}

    def connector(self, connection: Mapping[str, Any], **more: Any) -> Any:
        """Return os-brick's connector for what Cinder told of a volume."""
        return connector.InitiatorConnector.factory(
            connection["driver_volume_type"],
            self.root_helper,
            conn=connection,
            use_multipath=self._multipath,
            **more,
        )

    def as_root(self, *command: str) -> None:
        """Run a command with root's rights, by os-brick's helper where there is one."""
        rootwrap.execute(*command, run_as_root=True, root_helper=self.root_helper)


def _address(host: str) -> str:
    """Return this host's address, as far as its name tells."""
    for family in (socket.AF_INET6, socket.AF_INET):
        with contextlib.suppress(socket.gaierror):
            return str(socket.getaddrinfo(host, None, family)[0][4][0])
    return "127.0.0.1"
