"""Options common to all stores, a store's resolved options, and the listing for the generator."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from oslo_config import cfg

#: Seconds of the longest time-out, 23 days: systems count them in milliseconds, with 31 bits.
LONGEST_TIME = 2_000_000

#: Sections that mean something else and so cannot be store ids.
RESERVED_SECTIONS = frozenset({"DEFAULT", "glance_store", "backend_defaults"})

#: ``[DEFAULT]`` options; services such as Glance register their own.
DEFAULT_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.DictOpt(
        "enabled_backends",
        help="The stores, as a comma-separated list of store_id:driver pairs. Each store is "
        "configured in a section named by its id. A driver is an entry point of the namespace "
        "store_lib.drivers: cinder, file (or filesystem), http, rbd, s3, swift, vmware, or one "
        "that another package brings.",
        sample_default="fast:file, slow:file, web:http",
    ),
)

#: The memory of the transfers; its default is that of every :class:`Budget`.
MEMORY_LIMIT = cfg.IntOpt(
    "transfer_memory_limit",
    default=256,
    min=1,
    max=1 << 30,
    help="Memory in MiB that all transfers of the process may hold in buffers together. "
    "An upload waits until its minimum is free, for transfer_stall_timeout at most; small "
    "objects have a share of their own, and more window is taken only when it can be had at "
    "once. When several sets of stores in one process ask for different limits, the "
    "largest holds.",
)

#: ``[glance_store]`` options about the set of stores.
SET_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "default_backend",
        help="Id of the store that an add goes to when it names none. Left out, it is the only "
        "store there is, or the one with the highest weight that can be written to.",
    ),
    cfg.ListOpt(
        "stores",
        default=["file", "http"],
        help="Old single-store form, used when enabled_backends is not set: the drivers to "
        "enable. Their options stand in this section.",
    ),
    cfg.StrOpt(
        "default_store",
        default="file",
        help="Old single-store form: the URI scheme of the store that an add goes to.",
    ),
    MEMORY_LIMIT,
)

#: Options that every store has, in its own section or in ``[backend_defaults]``.
STORE_OPTIONS: tuple[cfg.Opt, ...] = (
    cfg.IntOpt(
        "weight",
        default=0,
        help="Preference among stores: where one can be chosen, the highest weight is.",
    ),
    cfg.StrOpt("store_description", help="What the operator calls this store."),
    cfg.StrOpt("description", help="Another name for store_description, which wins."),
    cfg.ListOpt(
        "former_places",
        default=[],
        help="Places that this store has moved from, as they stand in URIs of that time between "
        "scheme and object. s3: a server, old.example.org:8080, or a bucket of it, "
        "old.example.org:8080/images. rbd: a cluster's fsid, or a pool of it, <fsid>/images. "
        "swift: an account, old.example.org/v1/AUTH_x, or a server, old.example.org, where the "
        "store is multi-tenant. vmware: a server, old.example.org. cinder: the id that the store "
        "had. Objects are then looked for on the server that is configured now, in the bucket, "
        "pool, container or datastore of the URI. URIs of servers that are neither configured nor "
        "listed are refused.",
    ),
    cfg.IntOpt(
        "transfer_stall_timeout",
        default=300,
        min=0,
        max=1 << 40,
        help="Seconds without any progress after which a transfer is given up; 0 for no limit.",
    ),
    cfg.IntOpt(
        "transfer_deadline",
        default=0,
        min=0,
        max=1 << 40,
        help="Seconds after which a transfer is given up however it goes; 0 for no limit.",
    ),
    cfg.FloatOpt(
        "transfer_head_timeout",
        default=60,
        min=0,
        max=LONGEST_TIME,
        help="Seconds within which the answer to a request over HTTP is to begin: connecting to "
        "all addresses of a name, redirects, interim answers and the whole head, together. For "
        "requests that write it counts from the end of what is sent, and is no less than the time "
        "for which the server may be silent. 0 for no limit.",
    ),
    cfg.FloatOpt(
        "transfer_retry_seconds",
        default=20,
        min=0,
        max=LONGEST_TIME,
        help="Seconds for which one request is repeated when its errors are temporary (a busy "
        "server, a lost connection), from its first try on, with growing pauses and no sooner than "
        "the server asks for (Retry-After). A first try that took longer is repeated once. 0 "
        "repeats nothing.",
    ),
    cfg.IntOpt(
        "transfer_attempts",
        min=1,
        max=1_000_000,
        help="How often one request is tried at most within transfer_retry_seconds. Left out, as "
        "often as the time allows.",
    ),
)


def read_file(path: str) -> str:
    """Return the text of a file that an option names, without waiting for anybody to write one.

    :raises OSError: it cannot be read, or is no regular file but a pipe or a device
    :raises ValueError: the path cannot be one
    :raises UnicodeDecodeError: it is not UTF-8
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


class StoreOptions(Mapping[str, Any]):
    """The options of one store, resolved: its section, else ``[backend_defaults]``, else default.

    Values are read as attributes or by name.  The representation shows no values, so that a
    secret cannot be printed by accident.
    """

    #: The section that they stand in; ``glance_store`` in the old single-store form.
    section: str | None

    def __init__(
        self,
        values: Mapping[str, Any],
        explicit: frozenset[str] = frozenset(),
        section: str | None = None,
    ) -> None:
        """
        :param values: every option's value by name
        :param explicit: names that the operator set, as opposed to defaults
        """
        self._values = dict(values)
        self._explicit = explicit
        self.section = section

    @classmethod
    def of(cls, options: tuple[cfg.Opt, ...], **values: Any) -> "StoreOptions":
        """Make options from ``values`` and the defaults of ``options``: for tests and embedding.

        :raises ValueError: a value is not of its option's type, or its name is unknown
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
        """Return a time-out for an answer that sends no byte, no longer than the stall limit.

        A client that waits in a call cannot be told to stop: it has to end by itself.
        :param name: the option that has the time-out
        """
        timeout, stall = float(self[name]), float(self["transfer_stall_timeout"])
        return min(timeout, stall) if stall else timeout

    def moved_from(self, *places: str) -> bool:
        """Whether ``former_places`` lists one of ``places``.

        :param places: a server, and what of it, as :attr:`~store_lib.location.Location.uri` has
            them; with or without a scheme
        """
        listed = {_place_of(each) for each in self["former_places"]}
        return any(_place_of(each) in listed for each in places)

    def is_set(self, name: str) -> bool:
        """Whether the operator set the option, in whichever place."""
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
    """Return what places are compared by: no scheme, no login, a server's name in any case."""
    server, slash, rest = text.rpartition("://")[2].rpartition("@")[2].strip("/").partition("/")
    return f"{server.lower()}{slash}{rest}"


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return every option by section, for ``oslo-config-generator --namespace store_lib``.

    A store's options are shown in a section named by its driver; the operator writes them in
    the section named by the store's id.
    """
    from stevedore import ExtensionManager

    groups: list[tuple[str, list[cfg.Opt]]] = [
        ("DEFAULT", list(DEFAULT_OPTIONS)),
        ("glance_store", list(SET_OPTIONS)),
        ("backend_defaults", list(STORE_OPTIONS)),
    ]
    seen: set[type] = set()
    manager: ExtensionManager[Any] = ExtensionManager(
        namespace="store_lib.drivers", invoke_on_load=False
    )
    for extension in sorted(manager, key=lambda each: str(each.name)):
        driver: Any = extension.plugin
        if driver not in seen:
            seen.add(driver)
            groups.append((str(extension.name), [*driver.options]))
    return groups
