"""A small image service: PUT, GET, HEAD and DELETE of /images/ID, as a WSGI application.

It needs WebOb. IMAGE_SERVICE_CONF names the configuration file of the stores.
IMAGE_SERVICE_DATABASE names an SQLite file, in which the service remembers its images.
"""

import contextlib
import logging
import os
import sqlite3

from oslo_config import cfg
from webob import Request, Response, exc
from webob.dec import wsgify

from store_lib import StoreError, Stores
from store_lib.exceptions import (
    Duplicate,
    ErrorStatus,
    Invalid,
    LengthRequired,
    NotFound,
    StorageFull,
)
from store_lib.wsgi import request_body

LOG = logging.getLogger(__name__)

CONF = cfg.ConfigOpts()
CONF([], project="image_service", default_config_files=[os.environ["IMAGE_SERVICE_CONF"]])
STORES = Stores.from_config(CONF)
for store in STORES:
    if store.error is not None:
        LOG.error("Store %s cannot be used: %s", store.id, store.error)

#: The most specific first; what is none of these is 503 where it may pass, else 500.
ANSWERS = [
    (LengthRequired, exc.HTTPLengthRequired),
    (Invalid, exc.HTTPBadRequest),
    (NotFound, exc.HTTPNotFound),
    (Duplicate, exc.HTTPConflict),
    (StorageFull, exc.HTTPInsufficientStorage),
]


def query(statement: str, *values: str | int) -> tuple | None:
    """Run a statement of SQL and return the first row of its result."""
    path = os.environ["IMAGE_SERVICE_DATABASE"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        return database.execute(statement, values).fetchone()


query("CREATE TABLE IF NOT EXISTS images (id PRIMARY KEY, uri, size, sha512, store)")


def upload(request: Request, image_id: str) -> Response:
    """Store the body of the request."""
    body = request_body(request.environ)
    try:
        added = STORES.add(image_id, body, body.size)
    except StoreError:
        body.drain()
        raise
    digest = added.digests["sha512"]
    try:
        row = (image_id, added.uri, added.size, digest, added.store)
        query("INSERT INTO images VALUES (?, ?, ?, ?, ?)", *row)
    except Exception:
        STORES.delete(added.uri, added.store)  # else nobody would know of it
        raise
    return Response(status=201, etag=digest)


def download(request: Request, image_id: str) -> Response:
    """Send an image or a range of it; what HEAD wants is the same without the bytes."""
    uri, size, etag, store = find(image_id)
    if etag not in request.if_match:
        raise exc.HTTPPreconditionFailed()
    answer = Response(content_type="application/octet-stream", etag=etag, accept_ranges="bytes")
    if etag in request.if_none_match:
        answer.status = 304
        return answer
    offset, length = 0, None
    if request.range is not None and answer in request.if_range:
        wanted = request.range.content_range(size)
        if wanted is None:
            raise exc.HTTPRequestRangeNotSatisfiable(content_range=f"bytes */{size}")
        answer.status, answer.content_range = 206, wanted
        offset, length = wanted.start, wanted.stop - wanted.start
    if request.method != "HEAD":
        reader = STORES.get(uri, offset, length, store)
        # A descriptor is there only for a whole local file, which the server can send by itself.
        wrapper = request.environ.get("wsgi.file_wrapper")
        answer.app_iter = wrapper(reader) if wrapper and hasattr(reader, "fileno") else reader
    answer.content_length = size if length is None else length
    return answer


def delete(request: Request, image_id: str) -> Response:
    """Remove an image."""
    uri, _, _, store = find(image_id)
    STORES.delete(uri, store)
    query("DELETE FROM images WHERE id = ?", image_id)
    return Response(status=204)


def find(image_id: str) -> tuple[str, int, str, str]:
    """Return the URI, size, digest and store of an image."""
    row = query("SELECT uri, size, sha512, store FROM images WHERE id = ?", image_id)
    if row is None:
        raise exc.HTTPNotFound()
    return row


METHODS = {"PUT": upload, "GET": download, "HEAD": download, "DELETE": delete}


@wsgify
def application(request: Request) -> Response:
    """Answer a request."""
    folder, _, image_id = request.path_info.lstrip("/").partition("/")
    if folder != "images" or not image_id:
        raise exc.HTTPNotFound()
    if request.method not in METHODS:
        raise exc.HTTPMethodNotAllowed(allow=", ".join(METHODS))
    try:
        return METHODS[request.method](request, image_id)
    except StoreError as error:
        for kind, answer in ANSWERS:
            if isinstance(error, kind):
                raise answer(str(error)) from error
        LOG.error("%s of image %s failed: %s", request.method, image_id, error)
        passing = error.status is not ErrorStatus.PERMANENT
        raise (
            exc.HTTPServiceUnavailable() if passing else exc.HTTPInternalServerError()
        ) from error
