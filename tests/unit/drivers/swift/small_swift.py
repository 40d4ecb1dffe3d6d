"""A small Swift in memory, behind a real HTTP server, with faults where a test wants them."""

import dataclasses
import hashlib
import itertools
import json
import re
import ssl
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from store_lib.drivers.swift.location import CLAIM
from tests.scripted_server import Reply, Request, ScriptedServer, serve

#: A fault: given the request, the reply in place of the usual one, or ``None`` for that.
Fault = Callable[[Request], Reply | None]

KEY = "key-5eCr"
MODIFIED = "2026-11-20T16:30:27.432780"
DATE: str | None = None


class SmallSwift:
    """Containers and objects in dicts; version 1 of the login.

    :param page: objects in one page of a listing
    """

    def __init__(self, *, page: int = 10_000, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.manifests: dict[str, list[str]] = {}
        #: What symbolic links lead to, container first.
        self.links: dict[str, str] = {}
        #: What listings have as the time of every object, and the server's own clock.
        self.modified, self.date = MODIFIED, DATE
        self.containers: set[str] = set()
        self.page = page
        #: Tokens that are taken; each login adds one.
        self.tokens: set[str] = set()
        self.logins = 0
        #: Called between the check of an object's PUT and its storing: others may come between.
        self.landing: Callable[[Request], None] = lambda request: None
        #: The time of each object's PUT, by its path: when it came, not when it was stored.
        self._times: dict[str, int] = {}
        self._clock = itertools.count(1)
        self.faults: list[tuple[re.Pattern[str], Fault, list[int]]] = []
        self.server = ScriptedServer(self._answer, tls=tls, name="localhost")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def options(self, **more: Any) -> dict[str, Any]:
        """Return a store's options for it."""
        return {
            "swift_store_auth_version": "1",
            "swift_store_auth_address": f"{self.server.url}/auth/v1.0",
            "swift_store_user": "test:tester",
            "swift_store_key": KEY,
            "swift_store_create_container_on_put": True,
            "swift_store_large_object_size": 1,
            "swift_store_large_object_chunk_size": 1,
            "swift_store_segment_threads": 2,
            **more,
        }

    def fail(self, pattern: str, fault: Fault | Reply, times: int = 1_000_000) -> None:
        """Answer requests whose ``METHOD target`` matches with a fault, the first ``times``."""
        make = (lambda _: fault) if isinstance(fault, Reply) else fault
        self.faults.append((re.compile(pattern), make, [times]))

    def sent(self, method: str) -> list[str]:
        """Return the targets of all requests of a method."""
        return [each.target for each in self.server.requests if each.method == method]

    @property
    def names(self) -> list[str]:
        """The paths of all objects, container first."""
        return sorted(self.objects)

    @property
    def segments(self) -> list[str]:
        """The paths of all segments, those of claims left out."""
        return [each for each in self.names if "/.segments/" in each and CLAIM not in each]

    def _answer(self, request: Request) -> Reply:
        for pattern, fault, left in self.faults:
            if left[0] > 0 and pattern.search(f"{request.method} {request.target}"):
                left[0] -= 1
                reply = fault(request)
                if reply is not None:
                    return reply
        return self.usual(request)

    def usual(self, request: Request) -> Reply:
        """Return the answer without faults."""
        path, _, query_text = request.target.partition("?")
        query = {name: each[0] for name, each in parse_qs(query_text).items()}
        if path == "/auth/v1.0":
            return self._log_in(request)
        if request.headers.get("x-auth-token") not in self.tokens:
            return Reply(401, b"Unauthorized")
        place = unquote(path.removeprefix("/v1/TEMP_test")).lstrip("/")
        if not place:
            return self._account(request, query)
        container, slash, name = place.partition("/")
        if not slash:
            return self._container(request, container, query)
        return self._object(request, container, f"{container}/{name}", query)

    def _log_in(self, request: Request) -> Reply:
        if request.headers.get("x-auth-key") != KEY:
            return Reply(401)
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens.add(token)
        url = f"{self.server.url}/v1/TEMP_test"
        return Reply(200, headers={"X-Storage-Url": url, "X-Auth-Token": token})

    def _account(self, request: Request, query: dict[str, str]) -> Reply:
        if request.method == "GET":
            found = [{"name": each} for each in sorted(self.containers)]
            return self._listing(found, query)
        return Reply(204)

    def _container(self, request: Request, container: str, query: dict[str, str]) -> Reply:
        if request.method == "PUT":
            self.containers.add(container)
            return Reply(201)
        if container not in self.containers:
            return Reply(404)
        if request.method == "GET":
            found = [
                {
                    "name": each.partition("/")[2],
                    "bytes": len(data),
                    "hash": hashlib.md5(data).hexdigest(),
                    "last_modified": self.modified,
                }
                for each, (data, headers) in sorted(self.objects.items())
                if each.startswith(f"{container}/")
            ]
            return self._listing(found, query)
        if request.method == "DELETE":
            if any(each.startswith(f"{container}/") for each in self.objects):
                return Reply(409)
            self.containers.remove(container)
        return Reply(204)

    def _listing(self, found: list[dict[str, Any]], query: dict[str, str]) -> Reply:
        chosen = (
            each
            for each in found
            if each["name"].startswith(query.get("prefix", ""))
            and each["name"] > query.get("marker", "")
            and ("end_marker" not in query or each["name"] < query["end_marker"])
        )
        page = list(itertools.islice(chosen, int(query.get("limit", self.page))))
        return Reply(200, json.dumps(page).encode(), {"Date": self.date})

    def _object(self, request: Request, container: str, path: str, query: dict[str, str]) -> Reply:
        if request.method == "PUT":
            return self._put(request, container, path, query)
        if path not in self.objects:
            return Reply(404)
        itself = query.get("symlink") == "get"
        target = self.links.get(path)
        if target is not None and not itself and request.method != "DELETE":
            # A POST is redirected; the others say where they were led to.
            place = {"Content-Location": f"/v1/TEMP_test/{target}"}
            if request.method == "POST":
                return Reply(307)
            reply = self._object(request, target.partition("/")[0], target, query)
            return dataclasses.replace(reply, headers={**reply.headers, **place})
        data, headers = self.objects[path]
        if request.method == "DELETE":
            for each in (self.objects, self.manifests, self.links):
                each.pop(path, None)  # type: ignore[attr-defined]
            return Reply(204)
        if request.method == "POST":
            kept = {"content-type", "x-static-large-object"}
            left = {name: value for name, value in headers.items() if name in kept}
            self.objects[path] = data, {**left, **_metadata(request)}
            return Reply(202)
        if request.method == "COPY":
            data = b"".join(each or b"" for each in self._pieces(path))
            self.objects[unquote(request.headers["destination"])] = data, {}
            return Reply(201, headers={"ETag": hashlib.md5(data).hexdigest()})
        if query.get("multipart-manifest") == "get" and path in self.manifests:
            return Reply(200, json.dumps(self._manifest(path)).encode())
        if target is not None:
            headers = {**headers, "X-Symlink-Target": target}
        pieces = self._pieces(path)
        if None in pieces and request.method == "GET":
            return Reply(409)
        if None not in pieces:
            data = b"".join(each or b"" for each in pieces)
        tag = hashlib.md5(data).hexdigest()
        if request.method == "HEAD":
            return Reply(200, data, {**headers, "ETag": tag})
        return serve(request, data, tag=tag, headers=dict(headers))

    def _pieces(self, path: str) -> list[bytes | None]:
        """Return what an object is made of; ``None`` for a segment that is not there."""
        data, headers = self.objects.get(path, (None, {}))
        if "x-static-large-object" in headers:
            return [piece for each in self.manifests[path] for piece in self._pieces(each)]
        prefix = unquote(headers.get("x-object-manifest", ""))
        if not prefix:
            return [data]
        return [self.objects[each][0] for each in self.names if each.startswith(prefix)]

    def _manifest(self, path: str) -> list[dict[str, Any]]:
        parts = ((each, self.objects.get(each, (b"", {}))[0]) for each in self.manifests[path])
        return [
            {
                "name": f"/{each}",
                "bytes": len(data),
                "hash": hashlib.md5(data).hexdigest(),
                **({"sub_slo": True} if each in self.manifests else {}),
            }
            for each, data in parts
        ]

    def _put(self, request: Request, container: str, path: str, query: dict[str, str]) -> Reply:
        if container not in self.containers:
            return Reply(404)
        time = next(self._clock)
        manifest = "multipart-manifest" in query
        if request.headers.get("if-none-match") == "*" and path in self.objects:
            return _report("412 Precondition Failed") if manifest else Reply(412)
        self.landing(request)
        if time < self._times.get(path, 0):  # it is stored, and what came later hides it
            return _report("201 Created") if manifest else Reply(201)
        self._times[path] = time
        data = request.body
        headers = _metadata(request)
        if "x-symlink-target" in request.headers:
            self.links[path] = request.headers["x-symlink-target"]
        if manifest:
            parts = [each["path"].lstrip("/") for each in json.loads(request.body)]
            missing = [each for each in parts if each not in self.objects]
            if missing:
                return _report("400 Bad Request", Errors=[[missing[0], "404 Not Found"]])
            data = b"".join(self.objects[each][0] for each in parts)
            headers["x-static-large-object"] = "True"
            self.manifests[path] = parts
        self.objects[path] = data, headers
        tag = hashlib.md5(data).hexdigest()
        if manifest:
            return _report("201 Created", Etag=f'"{tag}"')
        return Reply(201, headers={"ETag": tag})


def _metadata(request: Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-object-m") or name == "content-type"
    }


def _report(status: str, **more: Any) -> Reply:
    """Return an answer whose real status is in its body."""
    return Reply(202, json.dumps({"Response Status": status, "Errors": [], **more}).encode())
