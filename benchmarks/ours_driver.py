"""The operations of a measured process on store_lib."""

import contextlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any

from benchmarks.child import (
    BESIDE,
    BLOCK,
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
    pipe_of,
    serve,
    stalled_clients,
    write_out,
)
from store_lib import Store, Stores
from store_lib.exceptions import NotFound
from store_lib.version import VERSION

STORE = "bench"


@contextlib.contextmanager
def _store(request: Request, measures: Measures) -> Iterator[Store]:
    """Open a store for the duration of the block."""
    driver = request.get("driver", "file")
    options = dict(request.get("options", {}))
    if driver == "file":
        options = {
            "filesystem_store_datadir": request["datadir"],
            "filesystem_store_durable": False,
            **options,
        }
    sections = {"DEFAULT": {"enabled_backends": f"{STORE}:{driver}"}, STORE: options}
    with Stores.from_mapping(sections, strict=True) as stores:
        store = stores[STORE]
        measures.idle()
        yield store


def _read(store: Store, uri: str, context: Any) -> bytes:
    with store.get(uri, context=context) as reader:
        return reader.read()


def _there(store: Store, uri: str, context: Any) -> bool:
    try:
        store.stat(uri, context=context)
    except NotFound:
        return False
    return True


def _add_measured(
    request: Request, measures: Measures, source: IO[bytes], size: int | None
) -> Answer:
    digests = tuple(request["digests"])
    context = context_of(request)
    with _store(request, measures) as store, measures.phase():
        result = store.add(request["object_id"], source, size, digests=digests, context=context)
    return {
        "uri": result.uri,
        "size": result.size,
        "digests": dict(result.digests),
        "report": result.report.as_dict(),
    }


def add(request: Request, measures: Measures) -> Answer:
    """Add a file of known size."""
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
    """Read an object by iterating over it."""
    got = 0
    with _store(request, measures) as store:
        context = context_of(request)
        with measures.phase(), store.get(request["uri"], context=context) as reader:
            for piece in reader:
                got += len(piece)
        with store.get(request["uri"], context=context) as reader:
            compare(reader, request["source"])
    return {"size": got}


def get_by_read(request: Request, measures: Measures) -> Answer:
    """Read an object in a loop, by default 1 MiB at a time."""
    got, amount = 0, request.get("amount", BLOCK)
    with _store(request, measures) as store:
        with measures.phase(), store.get(request["uri"]) as reader:
            while block := reader.read(amount):
                got += len(block)
        with store.get(request["uri"]) as reader:
            compare(iter(lambda: reader.read(amount), b""), request["source"])
    return {"size": got}


def collect(request: Request, measures: Measures) -> Answer:
    """Write an object to a file for the parent to check, and delete it unless told to keep it."""
    context = context_of(request)
    with _store(request, measures) as store:
        with store.get(request["uri"], context=context) as reader:
            write_out(reader, request["target"])
        if not request["keep"]:
            store.delete(request["uri"], context=context)
    return {}


def small(request: Request, measures: Measures) -> Answer:
    """Add, read and delete many small objects."""
    with _store(request, measures) as store:
        return _small(store, request["count"], measures, context_of(request))


def _small(store: Store, count: int, measures: Measures, context: Any) -> Answer:
    options = {"digests": ("md5", "sha512"), "context": context}
    for number in range(WARM_UP):
        uri = store.add(f"warm-up-{number}", BytesIO(bytes(SMALL)), SMALL, **options).uri
        _read(store, uri, context)
        store.delete(uri, context=context)
    objects = SmallObjects(count)
    sources = [BytesIO(content) for content in objects.contents]
    measures.idle()
    added = []
    with measures.phase("add"):
        for number, source in enumerate(sources):
            added.append(store.add(f"small-{number}", source, SMALL, **options))
    uris = [each.uri for each in added]
    objects.check_added([(each.uri, each.digests["md5"], each.digests["sha512"]) for each in added])
    got = 0
    with measures.phase("get"):
        for uri in uris:
            with store.get(uri, context=context) as reader:
                got += len(reader.read())
    objects.check_read(_read(store, uri, context) for uri in uris)
    with measures.phase("delete"):
        for uri in uris:
            store.delete(uri, context=context)
    objects.check_deleted(uris, lambda uri: _there(store, uri, context))
    return {"size": got}


def stalled(request: Request, measures: Measures) -> Answer:
    """Add small objects while other uploads are stalled."""
    with _store(request, measures) as store:

        def add(object_id: str) -> object:
            return store.add(object_id, BytesIO(bytes(1024)), 1024, digests=("md5", "sha512"))

        def upload(object_id: str, source: Any) -> object:
            return store.add(object_id, source, digests=("md5", "sha512"))

        return add_beside(measures, request["clients"], upload, add)


def waiting(request: Request, measures: Measures) -> Answer:
    """Read an object of 8 MiB while most other uploads wait for memory."""
    with _store(request, measures) as store:
        content = bytes(range(256)) * (8 * BLOCK // 256)
        uri = store.add("origin", content, digests=()).uri

        def upload(object_id: str, source: Any) -> object:
            return store.add(object_id, source, digests=())

        with stalled_clients(request["clients"], upload):
            _read(store, uri, None)
            with measures.phase():
                got = [len(_read(store, uri, None)) for _ in range(BESIDE)]
            if _read(store, uri, None) != content:
                raise SystemExit("WrongBytes: what was read is not what was added")
    return {"size": sum(got)}


def tell_facts(request: Request, measures: Measures) -> Answer:
    """Report the versions."""
    answer = facts("oslo.config")
    return {**answer, "packages": {"store_lib": VERSION, **answer["packages"]}}


if __name__ == "__main__":
    serve(
        {
            "add": add,
            "add_unknown": add_unknown,
            "pipe": add_pipe,
            "collect": collect,
            "get": get,
            "get_by_read": get_by_read,
            "small": small,
            "stalled": stalled,
            "waiting": waiting,
            "facts": tell_facts,
        }
    )
