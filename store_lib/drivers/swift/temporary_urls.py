"""Temporary URLs: signed by a key that the account or the container has."""

from urllib.parse import urlsplit

from store_lib.drivers.swift.account import path_of
from store_lib.drivers.swift.places import Place
from store_lib.exceptions import NotSupported


def temporary_url(place: Place, expires: int) -> str:
    """Return a URL that reads the object for ``expires`` seconds.

    :raises NotSupported: neither the account nor the container has a key, as far as we may see
    """
    from swiftclient.utils import generate_temp_url

    base = place.account.storage_url
    path = f"{urlsplit(base).path}/{place.container}/{place.name}"
    signed: str = generate_temp_url(path, expires, _key(place), "GET", digest="sha256")
    return f"{base}{place.path}?{signed[len(path) + 1 :]}"


def _key(place: Place) -> str:
    for kind, path in (("Account", ""), ("Container", path_of(place.container))):
        head = place.account.head(path)
        for number in ("", "-2"):
            key = head and head.headers.get(f"X-{kind}-Meta-Temp-Url-Key{number}")
            if key:
                return key
    raise NotSupported(
        f"Temporary URLs need a key, which neither the account nor the container "
        f"{place.container} has. Set one: swift post -m 'Temp-URL-Key:SECRET'."
    )
