"""The operations of a measured process on glance_store, in the peer's interpreter.

Imports only glance_store and the standard library.  To be as fast as possible, it fetches the store
object once and calls it directly, below the layer that Glance uses.
"""

import os
from collections.abc import Iterable
from io import BytesIO
from typing import IO, Any

import glance_store  # type: ignore[import-not-found, unused-ignore]
from glance_store import location  # type: ignore[import-not-found, unused-ignore]
from oslo_config import cfg

from benchmarks.child import (
    SMALL,
    WARM_UP,
    Answer,
    Measures,
    Request,
    SmallObjects,
    add_beside,
    compare,
    context_of,
    facts,
    file_of,
    pipe_of,
    serve,
    write_out,
)

STORE = "bench"


def _store(request: Request, measures: Measures) -> Any:
    """Configure a store as Glance does and return it."""
    driver = request.get("driver", "file")
    conf = cfg.CONF
    conf.register_opt(cfg.DictOpt("enabled_backends"))
    conf([], project="benchmarks", default_config_files=[], default_config_dirs=[])
    conf.set_override("enabled_backends", {STORE: driver})
    glance_store.register_store_opts(conf)
    conf.set_override("default_backend", STORE, group="glance_store")
    options = dict(request.get("peer_options", request.get("options", {})))
    if driver == "file":
        options["filesystem_store_datadir"] = request["datadir"]
        if request.get("peer_chunk_size"):
            options["filesystem_store_chunk_size"] = request["peer_chunk_size"]
    for name, value in options.items():
        conf.set_override(name, value, group=STORE)
    glance_store.create_multi_stores(conf)
    glance_store.verify_store()
    store = glance_store.get_store_from_store_identifier(STORE)
    measures.idle()
    return store


def _location(uri: str) -> Any:
    return location.get_location_from_uri_and_backend(uri, STORE, conf=cfg.CONF)


def _get(store: Any, uri: str, context: Any) -> Iterable[bytes]:
    pieces, _ = store.get(_location(uri), context=context)
    return pieces  # type: ignore[no-any-return, unused-ignore]


def _there(store: Any, uri: str, context: Any) -> bool:
    try:
        for _ in _get(store, uri, context):
            pass
    except glance_store.NotFound:
        return False
    return True


def _sync(path: str) -> None:
    """Sync a file and its directory, which the peer does not do."""
    for each in (path, os.path.dirname(path)):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _add_measured(
    request: Request, measures: Measures, source: IO[bytes], size: int | None
) -> Answer:
    store = _store(request, measures)
    context = context_of(request)
    with measures.phase():
        uri, written, md5, sha512, _ = store.add(
            request["object_id"], source, size or 0, "sha512", context=context
        )
        if request.get("durable"):
            _sync(file_of(uri))
    return {"uri": uri, "size": written, "digests": {"md5": md5, "sha512": sha512}}


def add(request: Request, measures: Measures) -> Answer:
    """Add a file of known size; the peer always computes md5 and another digest."""
    with open(request["source"], "rb") as source:
        return _add_measured(request, measures, source, request["size"])


def add_unknown(request: Request, measures: Measures) -> Answer:
    """Add a file without declaring its size."""
    with open(request["source"], "rb") as source:
        return _add_measured(request, measures, source, None)


def add_pipe(request: Request, measures: Measures) -> Answer:
    """Add from a pipe without declaring the size."""
    with pipe_of(request["size"]) as source:
        return _add_measured(request, measures, source, None)


def get(request: Request, measures: Measures) -> Answer:
    """Read an object with the iterator that the peer returns."""
    store = _store(request, measures)
    context = context_of(request)
    got = 0
    with measures.phase():
        for piece in _get(store, request["uri"], context):
            got += len(piece)
    compare(_get(store, request["uri"], context), request["source"])
    return {"size": got}


def collect(request: Request, measures: Measures) -> Answer:
    """Write an object to a file for the parent to check, and delete it unless told to keep it."""
    store = _store(request, measures)
    context = context_of(request)
    write_out(_get(store, request["uri"], context), request["target"])
    if not request["keep"]:
        store.delete(_location(request["uri"]), context=context)
    return {}


def small(request: Request, measures: Measures) -> Answer:
    """Add, read and delete many small objects."""
    store = _store(request, measures)
    context = context_of(request)
    for number in range(WARM_UP):
        source = BytesIO(bytes(SMALL))
        uri = store.add(f"warm-up-{number}", source, SMALL, "sha512", context=context)[0]
        b"".join(_get(store, uri, context))
        store.delete(_location(uri), context=context)
    objects = SmallObjects(request["count"])
    sources = [BytesIO(content) for content in objects.contents]
    measures.idle()
    added = []
    with measures.phase("add"):
        for number, source in enumerate(sources):
            added.append(store.add(f"small-{number}", source, SMALL, "sha512", context=context))
    uris = [each[0] for each in added]
    objects.check_added([(uri, md5, sha512) for uri, _, md5, sha512, _ in added])
    got = 0
    with measures.phase("get"):
        for uri in uris:
            got += len(b"".join(_get(store, uri, context)))
    objects.check_read(b"".join(_get(store, uri, context)) for uri in uris)
    with measures.phase("delete"):
        for uri in uris:
            store.delete(_location(uri), context=context)
    objects.check_deleted(uris, lambda uri: _there(store, uri, context))
    return {"size": got}


def stalled(request: Request, measures: Measures) -> Answer:
    """Add small objects while other uploads are stalled."""
    store = _store(request, measures)

    def add(object_id: str) -> object:
        return store.add(object_id, BytesIO(bytes(1024)), 1024, "sha512")

    def upload(object_id: str, source: Any) -> object:
        return store.add(object_id, source, 0, "sha512")

    return add_beside(measures, request["clients"], upload, add)


def tell_facts(request: Request, measures: Measures) -> Answer:
    """Report the versions."""
    return facts("glance_store", "oslo.config")


if __name__ == "__main__":
    serve(
        {
            "add": add,
            "add_unknown": add_unknown,
            "pipe": add_pipe,
            "collect": collect,
            "get": get,
            "small": small,
            "stalled": stalled,
            "facts": tell_facts,
        }
    )
