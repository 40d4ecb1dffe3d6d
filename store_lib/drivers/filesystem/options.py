"""The options of the filesystem driver, and its validated settings."""

import dataclasses
import json
import os
import re
import stat
from typing import Any

from oslo_config import cfg

from store_lib.drivers.filesystem.datadirs import DataDir, Misconfigured
from store_lib.options import LONGEST_TIME, StoreOptions, read_file

OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "filesystem_store_datadir",
        default="/var/lib/glance/images",
        help="Directory in which objects are stored, each as a file named by its id. It is created "
        "if missing. The service's user needs permission to read and write it. For several "
        "directories set filesystem_store_datadirs instead.",
    ),
    cfg.MultiStrOpt(
        "filesystem_store_datadirs",
        help="Several directories for objects, one per line, as PATH or PATH:PRIORITY. A new "
        "object goes to the one with the highest priority that has room for it, and among "
        "those of equal priority to the one with the most free space. The priority is a whole "
        "number, 0 when left out. Naming a directory twice is an error, and so is setting "
        "filesystem_store_datadir as well.",
    ),
    cfg.StrOpt(
        "filesystem_store_metadata_file",
        help="JSON file with the metadata that is returned with an object's URI: a JSON object, or "
        "a list of them, every one with the strings id and mountpoint. Of several, the one with "
        "the longest mountpoint that contains the object's file is returned.",
    ),
    cfg.IntOpt(
        "filesystem_store_file_perm",
        default=0,
        help="Permissions of the files of new objects, in octal, such as 640. The owner must be "
        "able to read. 0 or less leaves them to the umask. Where they cannot be set, a warning "
        "is logged and the object is kept.",
    ),
    cfg.IntOpt(
        "filesystem_store_dir_perm",
        default=0,
        help="Permissions of directories that the store creates, in octal, such as 2750. The owner "
        "must have all. 0 or less leaves them to the umask.",
    ),
    cfg.IntOpt(
        "filesystem_store_chunk_size",
        default=1024 * 1024,
        min=1,
        max=1 << 30,
        help="Bytes in which files are read and written, rounded up to a multiple of 64 KiB. "
        "glance_store's default was 64 KiB; with 1 MiB the work per chunk is negligible "
        "beside reading, writing and hashing it, and more only costs memory.",
    ),
    cfg.BoolOpt(
        "filesystem_thin_provisioning",
        default=False,
        help="Leave out blocks of 64 KiB that hold only zeros, so that they take no space: the "
        "file has holes there, which read as zeros.",
    ),
    cfg.BoolOpt(
        "filesystem_store_durable",
        default=True,
        help="Write an object's bytes and name to the disk before an add returns, so that it "
        "survives a power failure. Off, the system writes them when it sees fit, and an object "
        "that was added shortly before a power failure may be missing, empty or full of zeros.",
    ),
    cfg.BoolOpt(
        "filesystem_store_checked_publish",
        default=False,
        help="Accept a file system that has neither renameat2(RENAME_NOREPLACE) nor hard links, "
        "such as exFAT by FUSE. There nothing but locks prevents two processes from adding the "
        "same id, so locks have to work between all machines that share the directory. In Glance's "
        "interface it is on unless it is set.",
    ),
    cfg.IntOpt(
        "filesystem_store_timeout",
        default=0,
        min=0,
        max=LONGEST_TIME,
        help="Seconds that one call to the file system may hang, as on a dead network mount, "
        "before it is given up; 0 for no limit.",
    ),
    cfg.IntOpt(
        "filesystem_store_thread_pool_size",
        default=10,
        min=1,
        max=1000,
        help="With filesystem_store_timeout: how many calls may hang at once before further ones "
        "are refused without trying.",
    ),
    cfg.IntOpt(
        "filesystem_store_threadpool_threshold",
        default=75,
        min=0,
        max=100,
        help="With filesystem_store_timeout: the share of filesystem_store_thread_pool_size, in "
        "per cent, at which hanging calls are warned of.",
    ),
)

#: Minimum bytes of a hole: smaller ones would fragment a file and save little.
HOLE_SIZE = 64 * 1024

_PRIORITY = re.compile(r"[+-]?[0-9]{1,18}")


@dataclasses.dataclass(frozen=True, slots=True)
class UploadSettings:
    """The settings that all uploads have in common."""

    #: A multiple of :data:`HOLE_SIZE`.
    chunk_size: int
    #: Whether to leave holes for zeros.
    thin: bool
    #: Whether an object is on the disk before an add returns.
    durable: bool
    #: Mode of an object's file; ``None`` leaves it to the umask.
    file_perm: int | None = None

    @classmethod
    def of(cls, options: StoreOptions) -> "UploadSettings":
        """Return the settings; the driver sets ``file_perm`` once it is validated."""
        return cls(
            chunk_size=-(-options.filesystem_store_chunk_size // HOLE_SIZE) * HOLE_SIZE,
            thin=options.filesystem_thin_provisioning,
            durable=options.filesystem_store_durable,
        )


def data_directories(options: StoreOptions, misconfigured: Misconfigured) -> list[DataDir]:
    """Return the directories that the options name.

    :raises BadStoreConfiguration: both options are set, or neither, or one is malformed, or a
        directory is named twice
    """

    several = [entry.strip() for entry in options.filesystem_store_datadirs or () if entry.strip()]
    one = (options.filesystem_store_datadir or "").strip()
    if several and one and options.is_set("filesystem_store_datadir"):
        raise misconfigured(
            "filesystem_store_datadir and filesystem_store_datadirs are both set. Set one of them."
        )
    if not several and not one:
        raise misconfigured("Set filesystem_store_datadir or filesystem_store_datadirs.")
    directories: list[DataDir] = []
    for path, priority in map(_with_priority, several) if several else [(one, 0)]:
        if priority is None:
            raise misconfigured(
                "Expected PATH or PATH:PRIORITY with a whole number as the priority in "
                f"filesystem_store_datadirs, got {path!r}. Where the ':' belongs to the path, "
                "write a priority after it, such as ':0'."
            )
        if not _is_absolute(path):
            raise misconfigured(f"Expected the absolute path of a data directory, got {path!a}.")
        checked = options.filesystem_store_checked_publish
        new = DataDir(_normalised(path), path, priority, checked=checked)
        if any(new.real == known.real for known in directories):
            raise misconfigured(
                f"The directory {path} is named more than once in filesystem_store_datadirs. "
                "Name each directory once, with one priority."
            )
        directories.append(new)
    return directories


def _is_absolute(path: str) -> bool:
    """Return whether ``path`` is absolute and possible."""
    try:
        return path.startswith("/") and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _with_priority(entry: str) -> tuple[str, int | None]:
    """Parse PATH:PRIORITY.  An invalid priority is ``None``, and then all of it is the path."""
    path, colon, priority = entry.rpartition(":")
    if colon and _PRIORITY.fullmatch(priority.strip()):
        return path.rstrip(), int(priority.strip())  # int() strips fewer kinds of blanks
    return entry, None if colon and "/" not in priority else 0


def _normalised(path: str) -> str:
    # Removing "x/.." from the text would be wrong if x is a symbolic link.
    plain = os.path.realpath(path) if ".." in path.split("/") else os.path.normpath(path)
    return "/" + plain.lstrip("/")


def permissions(
    options: StoreOptions, name: str, owner_needs: int, misconfigured: Misconfigured
) -> int | None:
    """Return the mode in an option, or ``None`` if it is not set.

    The digits of the option's decimal number are octal digits of the mode.

    :param owner_needs: bits that must be set, such as ``stat.S_IRUSR``
    :raises BadStoreConfiguration: the value is not a mode, or the owner would lack a permission
    """
    value: int = options[name]
    if value <= 0:
        return None
    try:
        mode = int(str(value), 8)
    except ValueError:
        mode = 0o10000
    if mode > 0o7777:
        raise misconfigured(f"Expected octal permissions in {name}, got {value}.", readable=True)
    if mode & owner_needs != owner_needs:
        raise misconfigured(
            f"Expected permissions in {name} that leave the owner {_letters(owner_needs)}, got "
            f"{value}. Add them.",
            readable=True,
        )
    return mode


def _letters(bits: int) -> str:
    return stat.filemode(bits)[1:4].replace("-", "")


class MountMetadata:
    """The contents of ``filesystem_store_metadata_file``: metadata of mounts with objects.

    :raises BadStoreConfiguration: the file cannot be read or is invalid
    """

    def __init__(self, options: StoreOptions, misconfigured: Misconfigured) -> None:
        self._mounts: list[tuple[str, str]] = []
        path = options.filesystem_store_metadata_file
        if not path:
            return

        def bad(problem: str) -> Exception:
            reason = f"filesystem_store_metadata_file {path}: {problem}"
            return misconfigured(reason, readable=True)

        try:
            content = json.loads(read_file(path))
            plain = _is_metadata(content)
        except OSError as error:
            raise bad(f"cannot be read: {error.strerror or error}.") from error
        except ValueError as error:
            raise bad(f"is not JSON: {error}.") from error
        except RecursionError:
            raise bad("is nested too deep.") from None
        for item in content if isinstance(content, list) else [content]:
            if not isinstance(item, dict) or not _are_strings(item, "id", "mountpoint"):
                raise bad(
                    "Expected an object, or a list of objects, each with the strings 'id' and "
                    f"'mountpoint', got {json.dumps(item)[:200]}."
                )
            if not plain and not _is_metadata(item):
                raise bad(
                    "Expected values that are strings, lists or objects of such, got "
                    f"{json.dumps(item)[:200]}."
                )
            if not _is_absolute(item["mountpoint"]):
                raise bad(f"Expected an absolute mountpoint, got {item['mountpoint']!a}.")
            # Kept as JSON text, so that every caller gets a fresh copy.
            self._mounts.append((_normalised(item["mountpoint"]), json.dumps(item)))
        self._mounts.sort(key=lambda mount: -len(mount[0]))

    def __bool__(self) -> bool:
        return bool(self._mounts)

    def of(self, path: str) -> dict[str, Any]:
        """Return a fresh copy of the metadata of the longest mountpoint that contains ``path``."""
        if self._mounts:
            path = _normalised(path)
            for mountpoint, text in self._mounts:
                if path.startswith(mountpoint.rstrip("/") + "/"):
                    metadata: dict[str, Any] = json.loads(text)
                    return metadata
        return {}


def _are_strings(item: dict[str, Any], *names: str) -> bool:
    return all(isinstance(item.get(name), str) for name in names)


def _is_metadata(value: Any) -> bool:
    """Return whether ``value`` can be the metadata that a service keeps with a URI."""
    if isinstance(value, dict):
        return all(map(_is_metadata, value.values()))
    if isinstance(value, list):
        return all(map(_is_metadata, value))
    return isinstance(value, str)
