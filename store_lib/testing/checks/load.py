"""Bounded memory, forks, many threads, and errors that are pickled."""

import copy
import pickle
import threading
from typing import Any

from store_lib import exceptions
from store_lib.exceptions import ErrorStatus, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import NotApplicable, expect, expect_equal
from store_lib.testing.profile import MEMORY_GETS, MEMORY_LIMIT, allowed_memory
from store_lib.testing.target import Target, has_proc

_MIB = 1024 * 1024

#: Time limit in seconds for a forked child.
_CHILD_LIMIT = 30
#: Number of forks while threads are busy.
_FORKS = 40
#: The minimum on a slow store.
_MINIMUM_FORKS = 8
#: Numbers of concurrent adds whose memory is measured.
_CONCURRENT_ADDS = (1, 4, 24)


@check()
def check_memory_stays_under_the_limit(target: Target) -> None:
    """Check 18: big adds and gets, single and concurrent, stay within the memory limit."""
    if not has_proc():
        raise NotApplicable(
            "this system does not report the memory of a process in /proc/self/status"
        )
    config = target.directory / "memory.conf"
    config.write_text(f"[glance_store]\ntransfer_memory_limit = {MEMORY_LIMIT}\n")
    allowed = allowed_memory(target.chunk_size)
    size = target.settings.big_size
    adding = "add" in target.capabilities
    spec: dict[str, object] = {"warm": [], "ids": [], "uri": target.settings.known_uri}
    if adding:
        counts = target.subset(_CONCURRENT_ADDS, 2)
        ids = [[target.new_id(for_worker=True) for _ in range(count)] for count in counts]
        spec = {"warm": [target.new_id(for_worker=True)], "ids": ids, "uri": None}
    spec |= {"size": size, "gets": MEMORY_GETS}
    with target.child("memory", extra_configs=[str(config)], **spec) as child:
        for message in child.messages():
            growth, limit = message["growth"] // _MIB, allowed[message["action"]] // _MIB
            expect(
                growth <= limit,
                f"{message['at_once']} {message['action']} at once: expected at most {limit} MiB "
                f"more memory (transfer_memory_limit = {MEMORY_LIMIT}), got {growth}",
            )
        status, stderr = child.wait()
        expect_equal(status, 0, f"exit status of the measured process: {stderr[-2000:]}")


@check()
def check_stores_work_after_a_fork(target: Target) -> None:
    """Check 19: stores work in a forked child, and the fork does not disturb the parent."""
    adding = "add" in target.capabilities
    _fork(target, "idle", 1, target.profile.long_size)
    if adding:
        _fork(target, "paused", 1, target.profile.long_size)
    _fork(target, "busy", 4 if target.settings.short else _FORKS, 10_000)


def _fork(target: Target, how: str, children: int, size: int) -> None:
    what = f"stores that were used before a fork ({how})"
    adding = "add" in target.capabilities
    # With the smallest budget, memory of the parent's transfers must not count in the child.
    config = target.directory / "memory.conf"
    config.write_text("[glance_store]\ntransfer_memory_limit = 1\n")
    ids = [target.new_id(for_worker=True) for _ in range(2 + children)] if adding else []
    uri = None if adding else target.settings.known_uri
    messages: list[dict[str, Any]] = []
    with target.child(
        "fork",
        extra_configs=[str(config)],
        **{"ids": ids, "uri": uri, "size": size, "how": how, "children": children},
        **{"enough": target.settings.check_timeout / 8, "least": min(children, _MINIMUM_FORKS)},
        limit=_CHILD_LIMIT,
    ) as child:
        messages += child.messages()
        status, stderr = child.wait()
    for message in messages:
        if adding:
            for uri in [message.get("uri"), *message.get("added", ())]:
                if uri:
                    target.track_uri(uri)
    for message in messages:
        error = message.get("child") or message.get("thread")
        expect(not error, f"{what}: expected child and parent to succeed, got {message}")
        expect(
            message.get("status", 0) is not None,
            f"{what}: expected the child to end within {_CHILD_LIMIT} s, but it hung:\n"
            f"{stderr[-5000:]}",
        )
        expect_equal(message.get("status", 0), 0, f"{what}: exit status of the child")
    expect_equal(status, 0, f"{what}: exit status of the parent: {stderr[-2000:]}")
    last = messages[-1]
    expect(last["reader"], f"{what}: expected the right bytes from the parent's open reader")
    expect(last["again"], f"{what}: expected the right bytes from a new reader of the parent")
    if how == "paused":
        expect_equal(len(last["added"]), 1, f"{what}: adds of the parent with the right bytes")


@check()
def check_many_threads_share_a_store(target: Target) -> None:
    """Check 19: 64 threads can use a store at once, and each reads the right bytes."""
    known, known_content = target.sample(target.chunk_size + 1)
    number_of_threads = 12 if target.settings.short else 64
    begin = threading.Barrier(number_of_threads)
    wrong: list[str] = []

    def work(number: int) -> None:
        begin.wait()
        try:
            if "add" in target.capabilities:
                content = Content(1000 * number + number % 2 * target.chunk_size, seed=number)
                uri = target.add(content).uri
                target.expect_content(uri, content, f"the object of thread {number}")
                if "delete" in target.capabilities:
                    target.store.delete(uri)
            if number % 4 == 0:
                target.expect_content(
                    known, known_content, f"the shared object, read by thread {number}"
                )
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=work, args=(number,), daemon=True)
        for number in range(number_of_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(
        not wrong,
        f"{number_of_threads} threads: expected no error, got {len(wrong)}, such as {wrong[:3]}",
    )


def _error_classes(root: type[StoreError]) -> list[type[StoreError]]:
    classes = [root]
    for subclass in root.__subclasses__():
        classes += _error_classes(subclass)
    return list(dict.fromkeys(classes))


@check()
def check_errors_can_be_pickled(target: Target) -> None:
    """Check 19: every error, including the driver's own, survives pickle and copy unchanged."""
    expect(
        exceptions.NotFound in _error_classes(StoreError),
        "expected NotFound among the subclasses of StoreError",
    )
    for cls in _error_classes(StoreError):
        try:
            error = cls(
                "Expected 100% of it, got less.",
                store="fast",
                operation="add",
                object_id="an id",
                status=ErrorStatus.EXHAUSTED,
            )
        except TypeError:
            continue  # a driver's own class with another signature
        error.add_note("a note")
        copies = [
            pickle.loads(pickle.dumps(error, protocol))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        ]
        for other in (*copies, copy.copy(error), copy.deepcopy(error)):
            expect(type(other) is cls, f"{cls.__name__} pickled: got a {type(other).__name__}")
            expect_equal(str(other), str(error), f"{cls.__name__} pickled: its text")
            expect_equal(other.args, error.args, f"{cls.__name__} pickled: its args")
            expect_equal(vars(other), vars(error), f"{cls.__name__} pickled: its attributes")
        plain = cls()
        other = pickle.loads(pickle.dumps(plain))
        expect_equal(str(other), str(plain), f"{cls.__name__} from its template, pickled")
