"""A WSGI script that discards bodies and serves files, to measure the cost of uWSGI itself."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

CHUNK = 64 * 1024


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read a body to its end, or answer with the file that the path names."""
    if environ["REQUEST_METHOD"] == "PUT":
        while environ["wsgi.input"].read(CHUNK):
            pass
        start_response("204 No Content", [])
        return []
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Length", str(os.path.getsize(path)))])
    return _pieces(path)


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            yield piece
