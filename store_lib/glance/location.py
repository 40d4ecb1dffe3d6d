"""The maps of the stores, and the location objects that services pass to them.

The two maps are part of glance_store's interface: services read them, and tests replace them.
So other modules must read them as attributes of this module each time.
"""

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from store_lib.glance.exceptions import BadStoreUri, UnknownScheme
from store_lib.redaction import is_scheme

#: Entries by scheme, in the old single-store form; the keys of an entry are ``store``,
#: ``location_class`` and ``store_entry``.
SCHEME_TO_CLS_MAP: dict[str, dict[str, Any]] = {}
#: Entries by scheme and store id, with several stores.
SCHEME_TO_CLS_BACKEND_MAP: dict[str, dict[str, dict[str, Any]]] = {}


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, empty if it has none: a service may pass a path."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator and is_scheme(scheme) else ""


def get_location_from_uri(uri: str, conf: Any = cfg.CONF) -> "Location":
    """Parse a URI, in the old single-store form.

    :raises UnknownScheme: no store has the URI's scheme
    :raises BadStoreUri: the URI is malformed
    """
    scheme = scheme_of(uri)
    if scheme not in SCHEME_TO_CLS_MAP:
        raise UnknownScheme(scheme=scheme)
    return Location(scheme, SCHEME_TO_CLS_MAP[scheme]["location_class"], conf, uri=uri)


def get_location_from_uri_and_backend(uri: str, backend: str, conf: Any = cfg.CONF) -> "Location":
    """Parse a URI of the store ``backend``.

    :raises UnknownScheme: no such store, or it does not have the URI's scheme
    :raises BadStoreUri: the URI is malformed
    """
    scheme = scheme_of(uri)
    if scheme not in SCHEME_TO_CLS_BACKEND_MAP:
        raise UnknownScheme(scheme=scheme)
    if backend not in SCHEME_TO_CLS_BACKEND_MAP[scheme]:
        raise UnknownScheme(scheme=backend)
    location_class = SCHEME_TO_CLS_BACKEND_MAP[scheme][backend]["location_class"]
    return Location(scheme, location_class, conf, uri=uri, backend=backend)


def register_scheme_backend_map(scheme_map: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Add entries by scheme and store id, replacing existing ones."""
    for scheme, stores in scheme_map.items():
        SCHEME_TO_CLS_BACKEND_MAP.setdefault(scheme, {}).update(stores)


def register_scheme_map(scheme_map: Mapping[str, dict[str, Any]]) -> None:
    """Add entries by scheme, replacing existing ones."""
    SCHEME_TO_CLS_MAP.update(scheme_map)


class Location:
    """A location in a store, which a service passes to the store's methods."""

    def __init__(
        self,
        store_name: str,
        store_location_class: Any,
        conf: Any,
        uri: str | None = None,
        image_id: str | None = None,
        store_specs: Mapping[str, Any] | None = None,
        backend: str | None = None,
    ) -> None:
        self.store_name = store_name
        self.image_id = image_id
        self.store_specs = store_specs or {}
        self.conf = conf
        self.backend_group = backend
        self.store_location = store_location_class(self.store_specs, conf, backend_group=backend)
        if uri:
            self.store_location.parse_uri(uri)

    def get_store_uri(self) -> str:
        """Return the URI, credentials included."""
        uri: str = self.store_location.get_uri()
        return uri

    def get_uri(self) -> None:
        """Return ``None``, as in glance_store."""


class StoreLocation:
    """The base class of the classes that parse a store's URIs."""

    def __init__(
        self, store_specs: Mapping[str, Any], conf: Any, backend_group: str | None = None
    ) -> None:
        self.conf = conf
        self.specs = store_specs
        self.backend_group = backend_group
        if self.specs:
            self.process_specs()

    def process_specs(self) -> None:
        """Set the attributes from ``specs``."""

    def get_uri(self) -> str:
        """Return the URI."""
        raise NotImplementedError("StoreLocation subclass must implement get_uri()")

    def parse_uri(self, uri: str) -> None:
        """Parse ``uri``.

        :raises BadStoreUri: ``uri`` is malformed
        """
        raise NotImplementedError("StoreLocation subclass must implement parse_uri()")

    @staticmethod
    def validate_schemas(uri: str, valid_schemas: tuple[str, ...]) -> None:
        """Check that ``uri`` starts with one of ``valid_schemas``.

        :raises BadStoreUri: it does not
        """
        if not uri.startswith(tuple(valid_schemas)):
            raise BadStoreUri(
                f"Location URI must start with one of the following schemas: "
                f"{', '.join(valid_schemas)}"
            )
