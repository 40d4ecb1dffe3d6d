"""The base class of the stores that a service gets, and of third-party drivers."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oslo_config import cfg

from store_lib.display import get_logger
from store_lib.glance import capabilities, exceptions
from store_lib.options import STORE_OPTIONS

LOG = get_logger(__name__)

SHARED_CONF_GROUP = "backend_defaults"

_MIB = 1024 * 1024


class Store(capabilities.StoreCapability):
    """A store with glance_store's methods.

    :param conf: the service's ConfigOpts, where the store's options are registered
    :param backend: the store's id; ``None`` in the old single-store form
    """

    OPTIONS: Sequence[cfg.Opt] | None = None
    MULTI_BACKEND_OPTIONS: Sequence[cfg.Opt] | None = STORE_OPTIONS
    READ_CHUNKSIZE = 4 * _MIB
    WRITE_CHUNKSIZE = READ_CHUNKSIZE

    def __init__(self, conf: Any, backend: str | None = None) -> None:
        super().__init__()
        self.conf = conf
        self.backend_group = backend
        self.store_location_class: type[Any] | None = None
        self._url_prefix: str | None = None
        if self.OPTIONS is not None:
            if backend and self.MULTI_BACKEND_OPTIONS is not None:
                register(conf, self.MULTI_BACKEND_OPTIONS, backend)
            register(conf, self.OPTIONS, backend or "glance_store")
            register(conf, self.OPTIONS, SHARED_CONF_GROUP)

    @property
    def url_prefix(self) -> str | None:
        """The prefix of this store's URIs, ``None`` if unknown."""
        return self._url_prefix

    @property
    def weight(self) -> int:
        """The store's weight; stores of a higher weight are preferred."""
        return int(self.conf[self.backend_group].weight) if self.backend_group else 0

    def configure(self, re_raise_bsc: bool = False) -> None:
        """Prepare the store; if it cannot be written to, it is kept for reading.

        :param re_raise_bsc: whether to raise BadStoreConfiguration in that case
        """
        try:
            self.configure_add()
        except exceptions.BadStoreConfiguration as error:
            self.unset_capabilities(capabilities.BitMasks.WRITE_ACCESS)
            LOG.warning("Failed to configure store correctly: %s Disabling add method.", error)
            if re_raise_bsc:
                raise
        finally:
            self.update_capabilities()

    def configure_add(self) -> None:
        """Prepare the store for adding objects.

        :raises BadStoreConfiguration: objects cannot be added
        """

    def get_schemes(self) -> Sequence[str]:
        """Return the URI schemes of this store."""
        raise NotImplementedError

    def get_store_location_class(self) -> type[Any]:
        """Return the class that parses this store's URIs, its module's ``StoreLocation``."""
        if self.store_location_class is None:
            self.store_location_class = sys.modules[type(self).__module__].StoreLocation
        return self.store_location_class

    @capabilities.check
    def get(
        self, location: Any, offset: int = 0, chunk_size: int | None = None, context: Any = None
    ) -> tuple[Iterable[bytes], int]:
        """Return the bytes of an object, or of a range of it, and their number.

        The number is 0 if unknown.

        :raises NotFound: the object does not exist
        """
        raise NotImplementedError

    def get_size(self, location: Any, context: Any = None) -> int:
        """Return the size of an object in bytes, 0 if unknown.

        :raises NotFound: the object does not exist
        """
        raise NotImplementedError

    @capabilities.check
    def add(
        self,
        image_id: str,
        image_file: Any,
        image_size: int,
        hashing_algo: str,
        context: Any = None,
        verifier: Any = None,
    ) -> tuple[Any, ...]:
        """Add an object and return its URI, size, md5, digest and metadata.

        :param image_size: bytes, 0 if unknown
        :raises Duplicate: an object with this id exists
        """
        raise NotImplementedError

    @capabilities.check
    def delete(self, location: Any, context: Any = None) -> None:
        """Delete an object.

        :raises NotFound: the object does not exist
        """
        raise NotImplementedError

    def set_acls(
        self,
        location: Any,
        public: bool = False,
        read_tenants: Sequence[str] | None = None,
        write_tenants: Sequence[str] | None = None,
        context: Any = None,
    ) -> None:
        """Set who else may read or write an object.

        :raises NotImplementedError: the backend has no access lists
        """
        raise NotImplementedError


def register(conf: Any, options: Iterable[cfg.Opt], group: str) -> None:
    """Register options; an option that is already registered in another form is not changed."""
    for option in options:
        try:
            conf.register_opt(option, group=group)
        except cfg.DuplicateOptError:
            LOG.debug("Option %s is already registered in [%s].", option.name, group)


def back_compat_add(store_add_fun: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a store's ``add`` for callers that do not pass ``hashing_algo``.

    They get four values instead of five: without the second digest.
    """

    @functools.wraps(store_add_fun)
    def add(
        store: Any, image_id: Any, image_file: Any, image_size: Any, *rest: Any, **named: Any
    ) -> Any:
        modern = (
            "hashing_algo" in named
            or len(rest) + len(named) == 3
            or (rest and isinstance(rest[0], str))
        )
        if not modern:
            rest = ("md5", *rest)
        result = store_add_fun(store, image_id, image_file, image_size, *rest, **named)
        return result if modern else (*result[:3], result[4])

    return add


class BackendGroupConfiguration:
    """The options of one store: from its section, else ``[backend_defaults]``, else the default.

    Never sets an option, so the values that a service reads do not change.
    """

    def __init__(
        self, store_opts: Iterable[cfg.Opt], config_group: str | None = None, conf: Any = None
    ) -> None:
        self.config_group = config_group
        self.conf = conf if conf is not None else cfg.CONF
        self.append_config_values(store_opts)

    def append_config_values(self, store_opts: Iterable[cfg.Opt]) -> None:
        """Register more options."""
        options = list(store_opts)
        for group in filter(None, (self.config_group, SHARED_CONF_GROUP)):
            register(self.conf, options, group)

    def set_default(self, opt_name: str, default: Any) -> None:
        """Set the default of an option."""
        self.conf.set_default(opt_name, default, group=SHARED_CONF_GROUP)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an option's value, or ``default`` if there is no such option."""
        return getattr(self, key, default)

    def __getattr__(self, opt_name: str) -> Any:
        if opt_name.startswith("__"):
            raise AttributeError(opt_name)
        for group in filter(None, (self.config_group, SHARED_CONF_GROUP)):
            location = self.conf.get_location(opt_name, group)
            if location is not None and (
                location.location.is_user_controlled
                or location.location is cfg.Locations.set_override
            ):
                return getattr(self.conf[group], opt_name)
        return getattr(self.conf[SHARED_CONF_GROUP], opt_name)


__all__ = [
    "SHARED_CONF_GROUP",
    "BackendGroupConfiguration",
    "Store",
    "back_compat_add",
]
