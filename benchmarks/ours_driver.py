"""What a measured process does with store_lib."""

import contextlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from benchmarks.child import (
    BLOCK,
    SMALL,
    WARM_UP,
    Answer,
    Measures,
    Request,
    SmallObjects,
    compare,
    facts,
    pipe_of,
    serve,
)
from store_lib import Store, Stores
from store_lib.version import VERSION

STORE = "bench"


@contextlib.contextmanager
def _store(request: Request, measures: Measures) -> Iterator[Store]:
    """Configure one filesystem store, and close it afterwards."""
    options = {
        "filesystem_store_datadir": request["datadir"],
        "filesystem_thin_provisioning": request.get("thin", False),
        "filesystem_store_durable": request.get("durable", False),
    }
    sections = {"DEFAULT": {"enabled_backends": f"{STORE}:file"}, STORE: options}
    with Stores.from_mapping(sections, strict=True) as stores:
        store = stores[STORE]
        measures.idle()
        yield store


def _read(store: Store, uri: str) -> bytes:
    with store.get(uri) as reader:
        return reader.read()


def _add_measured(
    request: Request, measures: Measures, source: IO[bytes], size: int | None
) -> Answer:
    digests = tuple(request["digests"])
    with _store(request, measures) as store, measures.phase():
        result = store.add(request["object_id"], source, size, digests=digests)
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


def add_pipe(request: Request, measures: Measures) -> Answer:
    """Add from a pipe, without telling the size."""
    with pipe_of(request["size"]) as source:
        return _add_measured(request, measures, source, None)


def get(request: Request, measures: Measures) -> Answer:
    """Read an object by iterating over it."""
    got = 0
    with _store(request, measures) as store:
        with measures.phase(), store.get(request["uri"]) as reader:
            for piece in reader:
                got += len(piece)
        with store.get(request["uri"]) as reader:
            compare(reader, request["source"])
    return {"size": got}


def get_by_read(request: Request, measures: Measures) -> Answer:
    """Read an object in a loop, 1 MiB at a time."""
    got = 0
    with _store(request, measures) as store:
        with measures.phase(), store.get(request["uri"]) as reader:
            while block := reader.read(BLOCK):
                got += len(block)
        with store.get(request["uri"]) as reader:
            compare(iter(lambda: reader.read(BLOCK), b""), request["source"])
    return {"size": got}


def small(request: Request, measures: Measures) -> Answer:
    """Add, read and delete many small objects."""
    with _store(request, measures) as store:
        return _small(store, request["count"], measures)


def _small(store: Store, count: int, measures: Measures) -> Answer:
    digests = ("md5", "sha512")
    for number in range(WARM_UP):
        uri = store.add(f"warm-up-{number}", BytesIO(bytes(SMALL)), SMALL, digests=digests).uri
        _read(store, uri)
        store.delete(uri)
    objects = SmallObjects(count)
    sources = [BytesIO(content) for content in objects.contents]
    measures.idle()
    added = []
    with measures.phase("add"):
        for number, source in enumerate(sources):
            added.append(store.add(f"small-{number}", source, SMALL, digests=digests))
    uris = [each.uri for each in added]
    objects.check_added([(each.uri, each.digests["md5"], each.digests["sha512"]) for each in added])
    got = 0
    with measures.phase("get"):
        for uri in uris:
            with store.get(uri) as reader:
                got += len(reader.read())
    objects.check_read(_read(store, uri) for uri in uris)
    with measures.phase("delete"):
        for uri in uris:
            store.delete(uri)
    objects.check_deleted(uris)
    return {"size": got}


def tell_facts(request: Request, measures: Measures) -> Answer:
    """Tell versions."""
    answer = facts("oslo.config")
    return {**answer, "packages": {"store_lib": VERSION, **answer["packages"]}}


if __name__ == "__main__":
    serve(
        {
            "add": add,
            "pipe": add_pipe,
            "get": get,
            "get_by_read": get_by_read,
            "small": small,
            "facts": tell_facts,
        }
    )
