"""Checks what a store wants kept beside a URI, which a service writes to its database."""

from typing import Any

from store_lib.glance.exceptions import BackendException


def check_location_metadata(val: Any, key: str = "") -> None:
    """Check that ``val`` is made of dict, list and str alone.

    :raises BackendException: it is not
    """
    if isinstance(val, dict):
        for name, each in val.items():
            check_location_metadata(each, key=name)
    elif isinstance(val, list):
        for number, each in enumerate(val):
            check_location_metadata(each, key=f"{key}[{number}]")
    elif not isinstance(val, str):
        raise BackendException(
            f"The image metadata key {key} has an invalid type of {type(val)}. Only dict, list, "
            "and unicode are supported."
        )


def check_returned(store: object, metadata: Any) -> None:
    """Check what a store's ``add`` returned.

    :raises BackendException: it is not as a service can keep it
    """
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise BackendException(
            f"The storage driver {store} returned invalid metadata {metadata}. This must be a "
            "dictionary type"
        )
    try:
        check_location_metadata(metadata)
    except BackendException as error:
        raise BackendException(
            f"A bad metadata structure was returned from the {store} storage driver: {metadata}. "
            f"{error}."
        ) from error
