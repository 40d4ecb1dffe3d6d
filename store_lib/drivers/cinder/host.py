"""This host: os-brick, configured for this process, and the locks of the host."""

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
from store_lib.drivers.cinder.locks import HostLocks
from store_lib.drivers.cinder.volume import MOUNTPOINT

# os-brick's warnings, such as that this host has no iSCSI, are meant for logs.  Without a handler,
# Python would write them to standard error.
logging.getLogger("os_brick").addHandler(logging.NullHandler())

#: os-brick's contexts for commands as root; older versions have only the first.
_CONTEXTS = [
    getattr(privileged, name)
    for name in ("default", "brick_privsep_hide_output")
    if hasattr(privileged, name)
]


def _forked() -> None:
    """Forget the inherited channel to the helper, as no thread of the child reads its replies.

    It is closed, not shut down, which would end the parent's helper.
    """
    for context in _CONTEXTS:
        channel, context.channel = context.channel, None
        context.start_lock = threading.Lock()
        with contextlib.suppress(Exception):
            channel.writer.writesock.close()


os.register_at_fork(after_in_child=_forked)


class Host:
    """This host, with os-brick configured to attach volumes to it.

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
        self.locks = HostLocks(lock_path)
        self._multipath = multipath
        self._enforce_multipath = enforce_multipath
        self._properties: PerProcess[dict[str, Any]] = PerProcess(self._get_properties)
        self.root_helper = f"sudo glance-rootwrap {rootwrap_config}"
        cfg.CONF.set_default("lock_path", lock_path, group="os_brick")
        #: The command that starts os-brick's helper; empty where none is needed.
        self.helper = self._acquire_privileges(helper_command)

    def _acquire_privileges(self, command: str | None) -> str:
        given = cfg.CONF.privsep_osbrick.helper_command or command
        if given:
            cfg.CONF.set_default("helper_command", given, group="privsep_osbrick")
            return given
        if os.geteuid() == 0:
            # What needs root's rights runs in this process, without a helper to start.
            for context in _CONTEXTS:
                context.set_client_mode(False)
            return ""
        if shutil.which("glance-rootwrap"):
            priv_context.init(root_helper=shlex.split(self.root_helper))
            return f"{self.root_helper} privsep-helper"
        return "sudo privsep-helper"

    def properties(self) -> Mapping[str, Any]:
        """Return this host's properties, which Cinder needs to make a volume reachable from it."""
        return self._properties.get()

    def forget_properties(self) -> None:
        """Read the properties anew next time: a missing service may have been started by then."""
        self._properties.take()

    def _get_properties(self) -> dict[str, Any]:
        properties = connector.get_connector_properties(
            self.root_helper,
            _address(self.name),
            self._multipath,
            self._enforce_multipath,
            host=self.name,
        )
        return {**properties, "mountpoint": MOUNTPOINT}

    def connector(self, connection_info: Mapping[str, Any], **more: Any) -> Any:
        """Return os-brick's connector for a volume."""
        return connector.InitiatorConnector.factory(
            connection_info["driver_volume_type"],
            self.root_helper,
            conn=connection_info,
            use_multipath=self._multipath,
            **more,
        )

    def as_root(self, *command: str) -> None:
        """Run a command as root, through os-brick's helper if there is one."""
        rootwrap.execute(*command, run_as_root=True, root_helper=self.root_helper)


def _address(host: str) -> str:
    """Return this host's address, as far as its name resolves."""
    for family in (socket.AF_INET6, socket.AF_INET):
        with contextlib.suppress(socket.gaierror):
            return str(socket.getaddrinfo(host, None, family)[0][4][0])
    return "127.0.0.1"
