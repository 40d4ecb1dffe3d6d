"""A volume driver for Cinder: sparse files, attached on this host as loop devices or as files.

Files such as ``refuse-extend`` or ``hold-create`` in its directory make it fail or hang.
"""

import collections
import contextlib
import errno
import fcntl
import glob
import os
import shutil
import time

from cinder import exception, interface
from cinder.volume import configuration, driver
from oslo_concurrency import processutils
from oslo_config import cfg

#: ioctls of the kernel's loop driver, to do without a losetup process for each call.
_SET_FILE, _CLEAR, _SET_CAPACITY, _FIND_FREE = 0x4C00, 0x4C01, 0x4C07, 0x4C82

OPTIONS = [
    cfg.StrOpt("file_volumes_directory"),
    cfg.BoolOpt("file_volumes_loop", default=True),
]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)


@interface.volumedriver
class FileVolumes(driver.VolumeDriver):
    """A driver whose connections are ``local``."""

    VERSION = "1"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)
        self.directory = self.configuration.file_volumes_directory
        self.users = collections.Counter()

    @staticmethod
    def get_driver_options():
        return OPTIONS

    def do_setup(self, context):
        os.makedirs(self.directory, exist_ok=True)

    def check_for_setup_error(self):
        pass

    def create_volume(self, volume):
        self._fault("create")
        with open(self._path(volume), "xb") as file:
            file.truncate(volume["size"] << 30)

    def delete_volume(self, volume):
        self._fault("delete")
        self._detach(volume)
        if os.path.exists(self._path(volume)):
            os.unlink(self._path(volume))

    def extend_volume(self, volume, new_size):
        self._fault("extend")
        os.truncate(self._path(volume), new_size << 30)
        for device in self._devices(volume):
            _control(device, _SET_CAPACITY)

    def create_snapshot(self, snapshot):
        source = os.path.join(self.directory, snapshot["volume_name"])
        processutils.execute("cp", "--sparse=always", source, self._path(snapshot))

    def delete_snapshot(self, snapshot):
        if os.path.exists(self._path(snapshot)):
            os.unlink(self._path(snapshot))

    def create_cloned_volume(self, volume, source):
        processutils.execute("cp", "--sparse=always", self._path(source), self._path(volume))
        os.truncate(self._path(volume), volume["size"] << 30)

    create_volume_from_snapshot = create_cloned_volume

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        self._fault("attach")
        path = self._path(volume)
        if self.configuration.file_volumes_loop:
            path = next(self._devices(volume), None) or _attach(path)
        self.users[volume["id"]] += 1
        return {"driver_volume_type": "local", "data": {"device_path": path}}

    def terminate_connection(self, volume, connector, force=False, **kwargs):
        self._fault("detach")
        self.users[volume["id"]] -= 1
        if self.users[volume["id"]] <= 0:
            del self.users[volume["id"]]
            self._detach(volume)

    def _update_volume_stats(self):
        usage = shutil.disk_usage(self.directory)
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name"),
            "vendor_name": "tests",
            "driver_version": self.VERSION,
            "storage_protocol": "local",
            "total_capacity_gb": usage.total / (1 << 30),
            "free_capacity_gb": usage.free / (1 << 30),
            "reserved_percentage": 0,
            "thin_provisioning_support": True,
            "max_over_subscription_ratio": "1000.0",
            "provisioned_capacity_gb": 0,
            "multiattach": True,
            "QoS_support": False,
        }

    def _path(self, volume):
        return os.path.join(self.directory, volume["name"])

    def _devices(self, volume):
        """Yield the loop devices of a volume that the kernel knows."""
        for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
            with contextlib.suppress(OSError), open(backing) as file:
                if file.read().strip() == self._path(volume):
                    yield f"/dev/{backing.split('/')[3]}"

    def _detach(self, volume):
        if self.configuration.file_volumes_loop:
            for device in self._devices(volume):
                _control(device, _CLEAR)

    def _fault(self, step):
        while os.path.exists(os.path.join(self.directory, f"hold-{step}")):
            time.sleep(0.02)
        if os.path.exists(os.path.join(self.directory, f"refuse-{step}")):
            raise exception.VolumeBackendAPIException(data=f"told to refuse: {step}")


def _attach(path):
    """Attach a file to a loop device and return the device."""
    with open(path, "r+b") as file:
        while True:
            with open("/dev/loop-control") as control:
                device = f"/dev/loop{fcntl.ioctl(control, _FIND_FREE)}"
            try:
                _control(device, _SET_FILE, file.fileno())
                return device
            except OSError as error:
                if error.errno != errno.EBUSY:  # another process was faster
                    raise


def _control(device, call, argument=0):
    with open(device, "r+b", buffering=0) as opened:
        fcntl.ioctl(opened, call, argument)
