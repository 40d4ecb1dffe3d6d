"""File systems mounted for a test: in memory, on a loop device, or through FUSE."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers.installed import NotInstalled, debian_packages
from tests.servers.leftovers import detach_afterwards


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(path: Path, *mount: str | Path) -> Iterator[Path]:
    """Make a directory, mount something on it with a command, and unmount it at the end.

    :raises NotInstalled: this is not root
    """
    if os.geteuid() != 0:
        raise NotInstalled("mounting a file system needs root: run the tests as root")
    path.mkdir()
    _run(*mount, path)
    try:
        yield path
    finally:
        _run("umount", "--lazy", path)


def tmpfs(path: Path, *options: str) -> contextlib.AbstractContextManager[Path]:
    """Mount a file system in memory, with options such as ``size=4m``."""
    return mounted(path, "mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs")


def bindfs(path: Path, below: Path) -> contextlib.AbstractContextManager[Path]:
    """Mount a directory a second time through FUSE.

    :raises NotInstalled: bindfs or FUSE is missing
    """
    debian_packages({"bindfs": "bindfs"}, "FUSE")
    _need_fuse()
    return mounted(path, "bindfs", below)


@contextlib.contextmanager
def exfat(path: Path) -> Iterator[Path]:
    """Mount exFAT through FUSE: no hard links, no rename flags, case-insensitive names.

    :raises NotInstalled: a requirement is missing
    """
    debian_packages(
        {"/sbin/mount.exfat-fuse": "exfat-fuse", "/sbin/mkfs.exfat": "exfatprogs"}, "exFAT"
    )
    _need_fuse()
    image = path.with_suffix(".img")
    with (
        _loop_device(image, 512, "mkfs.exfat") as device,
        mounted(path, "mount.exfat-fuse", "-o", "umask=022", device),
    ):
        yield path


@contextlib.contextmanager
def xfs(path: Path) -> Iterator[Path]:
    """Mount an XFS of 300 MiB.

    :raises NotInstalled: a requirement is missing
    """
    debian_packages({"/sbin/mkfs.xfs": "xfsprogs"}, "XFS")
    image = path.with_suffix(".img")
    with _loop_device(image, 300, "mkfs.xfs", "-q") as device, mounted(path, "mount", device):
        yield path


@contextlib.contextmanager
def _loop_device(image: Path, mebibytes: int, *make: str) -> Iterator[str]:
    """Make a file system in a sparse file."""
    if os.geteuid() != 0:
        raise NotInstalled("mounting a file system needs root: run the tests as root")
    with image.open("wb") as file:
        file.truncate(mebibytes * 2**20)
    _run(*make, image)
    detach_afterwards(image.parent)
    device = _run("losetup", "--find", "--show", image)
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _need_fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        raise NotInstalled("FUSE needs /dev/fuse: load the kernel's module fuse")
