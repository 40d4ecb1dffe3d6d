"""Options of all stores, StoreOptions with their values, and the listing for the generator."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from oslo_config import cfg

from store_lib.head_limit import DEFAULT_SECONDS

#: The entry points of the drivers.
NAMESPACE = "store_lib.drivers"

#: Maximum timeout in seconds, 23 days: systems count milliseconds with 31 bits.
LONGEST_TIME = 2_000_000

#: Sections with another meaning, which cannot be store ids.
RESERVED_SECTIONS = frozenset({"DEFAULT", "glance_store", "backend_defaults"})

#: ``[DEFAULT]`` options; services such as Glance register their own.
DEFAULT_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.DictOpt(
        "enabled_backends",
        help="The stores, as a comma-separated list of store_id:driver pairs. Each store is "
        "configured in a section named after its id. The drivers are cinder, file (or "
        "filesystem), http, rbd, s3, swift, vmware, and those that other packages add to the "
        "entry points store_lib.drivers.",
        sample_default="fast:file, slow:file, web:http",
    ),
)

#: The memory for transfers; its default is that of every :class:`Budget`.
MEMORY_LIMIT = cfg.IntOpt(
    "transfer_memory_limit",
    default=256,
    min=1,
    max=1 << 30,
    help="Maximum memory in MiB for the buffers of all transfers of the process. An upload waits "
    "for its minimum, for at most transfer_stall_timeout; small objects have a separate share, and "
    "larger buffers are used only if memory is free. If several Stores objects in a process have "
    "different limits, the largest applies.",
)

#: ``[glance_store]`` options that concern all stores together.
SET_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "default_backend",
        help="Id of the store for adds that do not name a store. Default: the only store, or the "
        "writable store with the highest weight.",
    ),
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        help="Drivers to enable in the old single-store form, which is used if enabled_backends is "
        "not set. Their options are in this section.",
    ),
    cfg.StrOpt(
        "default_store",
        default="file",
        help="URI scheme of the store for adds in the old single-store form.",
    ),
    MEMORY_LIMIT,
)

#: Options of every store, in its section or in ``[backend_defaults]``.
STORE_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.IntOpt(
        "weight",
        default=0,
        help="Weight of the store; stores of a higher weight are preferred.",
    ),
    cfg.StrOpt("store_description", help="Description of the store."),
    cfg.StrOpt(
        "description",
        help="Another name for store_description, which takes precedence.",
    ),
    cfg.ListOpt(
        "former_places",
        default=[],
        help="Former places of this store, as in the URIs of that time between scheme and object. "
        "s3: a server (old.example.org:8080) or one of its buckets (old.example.org:8080/images). "
        "rbd: a cluster's fsid, or one of its pools (<fsid>/images). swift: an account "
        "(old.example.org/v1/AUTH_x) or, for a multi-tenant store, a server (old.example.org). "
        "vmware: a server (old.example.org). cinder: a former id of the store. Objects with such "
        "URIs are looked up on the configured server, in the bucket, pool, container or datastore "
        "of the URI. URIs of servers that are neither configured nor listed are refused.",
    ),
    cfg.IntOpt(
        "transfer_stall_timeout",
        default=300,
        min=0,
        max=1 << 40,
        help="Seconds without progress after which a transfer is aborted; 0 for no limit.",
    ),
    cfg.IntOpt(
        "transfer_deadline",
        default=0,
        min=0,
        max=1 << 40,
        help="Seconds after which a transfer is aborted in any case; 0 for no limit.",
    ),
    cfg.FloatOpt(
        "transfer_head_timeout",
        default=DEFAULT_SECONDS,
        min=0,
        max=LONGEST_TIME,
        help="Seconds within which the response to an HTTP request must begin: for connecting to "
        "all addresses of a name, redirects, interim responses and the whole head together. For "
        "requests that write, it counts from the end of the body and is at least the read "
        "timeout. 0 for no limit.",
    ),
    cfg.FloatOpt(
        "transfer_retry_seconds",
        default=20,
        min=0,
        max=LONGEST_TIME,
        help="Seconds for which a request is retried after temporary errors (a busy server, a "
        "lost connection), counted from the first try, with growing pauses and never sooner than "
        "the server allows (Retry-After). If the first try takes longer than this, it is retried "
        "once. 0 disables retries.",
    ),
    cfg.IntOpt(
        "transfer_attempts",
        min=1,
        max=1_000_000,
        help="Maximum number of tries of a request within transfer_retry_seconds. Default: no "
        "maximum.",
    ),
)


def read_file(path: str) -> str:
    """Return the text of a file that an option names; never block on a pipe.

    :raises OSError: the file cannot be read or is not a regular file
    :raises ValueError: the path is invalid
    :raises UnicodeDecodeError: the file is not UTF-8
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


class StoreOptions(Mapping[str, Any]):
    """The values of a store's options: of its section, ``[backend_defaults]`` or the default.

    Values can be read as attributes or items.  The representation does not contain values, so
    that a secret is not printed by accident.
    """

    #: The section with the options; ``glance_store`` in the old single-store form.
    section: str | None

    def __init__(
        self,
        values: Mapping[str, Any],
        explicit: frozenset[str] = frozenset(),
        section: str | None = None,
    ) -> None:
        """
        :param values: the values of all options by name
        :param explicit: names of options that the operator has set
        """
        self._values = dict(values)
        self._explicit = explicit
        self.section = section

    @classmethod
    def of(cls, options: tuple[cfg.Opt, ...], **values: Any) -> "StoreOptions":
        """Make options from ``values`` and the defaults of ``options``, for tests and embedding.

        :raises ValueError: a value does not have its option's type, or its name is unknown
        """
        known = {opt.dest: opt for opt in (*STORE_OPTIONS, *options)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown options: {', '.join(unknown)}")
        resolved = {name: opt.default for name, opt in known.items()}
        for name, value in values.items():
            opt = known[name]
            if value is None:
                resolved[name] = None
            elif opt.multi:
                resolved[name] = [opt.type(item) for item in value]
            else:
                resolved[name] = opt.type(value)
        return cls(resolved, frozenset(values))

    def silence(self, name: str) -> float:
        """Return a read timeout in seconds, limited by ``transfer_stall_timeout``.

        A client library cannot be interrupted while it waits, so its own timeout must end it.

        :param name: the option with the timeout
        """
        timeout, stall = float(self[name]), float(self["transfer_stall_timeout"])
        return min(timeout, stall) if stall else timeout

    def moved_from(self, *places: str) -> bool:
        """Return whether ``former_places`` contains one of ``places``.

        :param places: a server, or a part of it, as in :attr:`~store_lib.location.Location.uri`,
            with or without the scheme
        """
        listed = {_place_of(place) for place in self["former_places"]}
        return any(_place_of(place) in listed for place in places)

    def is_set(self, name: str) -> bool:
        """Return whether the operator has set the option in any section."""
        return name in self._explicit

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no option {name!r}") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<StoreOptions: {len(self)} options, set: {', '.join(sorted(self._explicit))}>"


def _place_of(text: str) -> str:
    """Return a place in comparable form: without scheme and login, the server in lower case."""
    server, slash, rest = text.rpartition("://")[2].rpartition("@")[2].strip("/").partition("/")
    return f"{server.lower()}{slash}{rest}"


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return every option by section, for ``oslo-config-generator --namespace store_lib``.

    The sample has a section for every driver; in a configuration, the section of a store is named
    after its id.
    """
    from stevedore import ExtensionManager

    groups: list[tuple[str, list[cfg.Opt]]] = [
        ("DEFAULT", list(DEFAULT_OPTIONS)),
        ("glance_store", list(SET_OPTIONS)),
        ("backend_defaults", list(STORE_OPTIONS)),
    ]
    seen: set[type] = set()
    manager: ExtensionManager[Any] = ExtensionManager(namespace=NAMESPACE, invoke_on_load=False)
    for extension in sorted(manager, key=lambda extension: str(extension.name)):
        driver: Any = extension.plugin
        if driver not in seen:
            seen.add(driver)
            groups.append((str(extension.name), [*driver.options]))
    return groups
