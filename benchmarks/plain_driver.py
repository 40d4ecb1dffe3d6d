"""The operations of a measured process without a store: the limits for every store."""

import hashlib
import threading

from benchmarks.child import BLOCK, Answer, Measures, Request, serve

#: Size of the buffer that is hashed repeatedly: larger than the caches of a processor.
BUFFER = 64 * BLOCK


def hash_side_by_side(request: Request, measures: Measures) -> Answer:
    """Hash as many bytes as an add, without I/O and with a thread for each digest."""
    size: int = request["size"]
    with open(request["source"], "rb", buffering=0) as file:
        buffer = memoryview(file.read(min(size, BUFFER)))
    found: dict[str, str] = {}
    failed: list[BaseException] = []

    def hash_all(name: str) -> None:
        try:
            digest = hashlib.new(name)
            for start in range(0, size, BLOCK):
                offset = start % BUFFER
                digest.update(buffer[offset : offset + min(BLOCK, size - start)])
            found[name] = digest.hexdigest()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=hash_all, args=(name,)) for name in request["digests"]]
    with measures.phase():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    return {"size": size}


def read(request: Request, measures: Measures) -> Answer:
    """Read a file in a loop, by default 1 MiB at a time."""
    got, amount = 0, request.get("amount", BLOCK)
    with measures.phase(), open(request["source"], "rb", BLOCK) as file:
        while block := file.read(amount):
            got += len(block)
    return {"size": got}


if __name__ == "__main__":
    serve({"hash": hash_side_by_side, "read": read})
