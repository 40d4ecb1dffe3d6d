"""glance_store's exceptions, as services catch and read them."""

import pytest

import store_lib.exceptions
from store_lib.glance import exceptions

#: Every class of glance_store 5.7.0 with a template, and what fills it.
NAMES = {
    "MissingCredentialError": {"required": "x"},
    "BadAuthStrategy": {"expected": "x", "received": "y"},
    "AuthorizationRedirect": {"uri": "http://x"},
    "NotFound": {"image": None},
    "UnknownHashingAlgo": {"algo": "x"},
    "UnknownScheme": {"scheme": "x"},
    "BadStoreUri": {"uri": "http://x"},
    "Duplicate": {"image": "x"},
    "StorageFull": {},
    "StorageWriteDenied": {},
    "AuthBadRequest": {"url": "x"},
    "AuthUrlNotFound": {"url": "x"},
    "AuthorizationFailure": {},
    "NotAuthenticated": {},
    "Forbidden": {},
    "Invalid": {},
    "BadStoreConfiguration": {"store_name": "x", "reason": "y"},
    "DriverLoadFailure": {"driver_name": "x"},
    "StoreDeleteNotSupported": {},
    "StoreGetNotSupported": {},
    "StoreRandomGetNotSupported": {"offset": 1, "chunk_size": 2},
    "StoreAddDisabled": {},
    "MaxRedirectsExceeded": {"redirects": 5},
    "NoServiceEndpoint": {},
    "RegionAmbiguity": {"region": "x"},
    "RemoteServiceUnavailable": {},
    "HasSnapshot": {},
    "InUseByStore": {},
    "HostNotInitialized": {"host": "x"},
    "TimeoutError": {"timeout": 30},
}


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_template_and_a_text(name):
    """Each has the class attribute message, the attribute msg, keywords, and takes a text."""
    cls = getattr(exceptions, name)
    assert issubclass(cls, exceptions.GlanceStoreException)
    error = cls(**NAMES[name])
    assert error.msg == str(error)
    assert "%(" not in error.msg.replace("%(reason)", "")
    for value in NAMES[name].values():
        assert str(value) in error.msg
    assert isinstance(cls.message, str)
    assert cls("a text").msg == cls(message="a text").msg == "a text"
    assert cls().msg


def test_the_others():
    """Those that are in glance_store's module without a template."""
    assert exceptions.BackendException("text").msg == "text"
    assert issubclass(exceptions.UnsupportedBackend, exceptions.BackendException)
    assert exceptions.RedirectException("http://x").url == "http://x"
    assert not issubclass(exceptions.TimeoutError, TimeoutError)
    assert issubclass(exceptions.StoreRandomGetNotSupported, exceptions.StoreGetNotSupported)


def test_nothing_is_translated():
    """What store_lib raises is what a service catches."""
    for name in exceptions.__all__:
        found = getattr(store_lib.exceptions, name, None)
        assert found is None or found is getattr(exceptions, name)
