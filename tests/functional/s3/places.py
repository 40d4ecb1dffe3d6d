"""Where the s3 tests find real servers: Ceph's gateway in every way it is asked, and Swift."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers.ceph import Ceph
from tests.servers.swift import TEMPAUTH_USERS, Swift

#: Small parts, so that objects of a few MiB are made of several.
SMALL_PARTS = {"s3_store_large_object_size": 6, "s3_store_large_object_chunk_size": 5}


@dataclasses.dataclass(frozen=True)
class Place:
    """A server and how it is asked: options of a store, but for the bucket."""

    options: dict[str, Any]


def _ceph(server: Ceph, host: str, **options: Any) -> Place:
    keys = {
        "s3_store_access_key": server.s3_access_key,
        "s3_store_secret_key": server.s3_secret_key,
    }
    return Place({"s3_store_host": host, **keys, **options})


def ceph_http(server: Ceph) -> Place:
    """The gateway by http, the bucket in the path."""
    return _ceph(server, server.s3_endpoint, s3_store_bucket_url_format="path")


def ceph_https(server: Ceph) -> Place:
    """The gateway by https, the bucket in the host name."""
    host = server.s3_tls_endpoint.replace("127.0.0.1", "s3.localhost")
    authorities = str(server.s3_ca)
    return _ceph(server, host, s3_store_bucket_url_format="virtual", s3_store_cacert=authorities)


def swift_s3(server: Swift) -> Place:
    """Swift's S3 interface, by http."""
    user = "test:tester"
    return Place(
        {
            "s3_store_host": server.s3_url,
            "s3_store_access_key": user,
            "s3_store_secret_key": TEMPAUTH_USERS[user],
        }
    )


#: Each place by name: the fixture that has its server, and what makes of that a place.
PLACES: dict[str, tuple[str, Callable[[Any], Place]]] = {
    "Ceph, http, path": ("ceph", ceph_http),
    "Ceph, https, virtual": ("ceph", ceph_https),
    "Swift": ("swift", swift_s3),
}


def find_place(name: str, request: pytest.FixtureRequest) -> Place:
    """Return a place; its server is started when it is first asked for."""
    fixture, make = PLACES[name]
    return make(request.getfixturevalue(fixture))


#: A module for ``sitecustomize.py``, so that every process finds the hosts of buckets.
LOOK_UP = '''\
"""Looks up names below localhost, as resolvers should by RFC 6761 and not all do."""

import socket

_look_up = socket.getaddrinfo


def getaddrinfo(host, *arguments, **named):
    if isinstance(host, str) and host.endswith(".localhost"):
        host = "localhost"
    return _look_up(host, *arguments, **named)


socket.getaddrinfo = getaddrinfo
'''
