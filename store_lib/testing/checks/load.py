"""Memory under a bound, forks, many threads, and errors that travel between processes."""

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

#: Seconds within which a forked child must have done its work.
_FORKED = 30
#: Forks under load.
_FORKS = 40
#: ... and how many at least, however slow the store.
_LEAST_FORKS = 8
#: Adds at once whose memory is measured, besides one, ...
_AT_ONCE = (4, 24)


@check()
def check_memory_stays_under_the_limit(target: Target) -> None:
    """Check 18: big adds and gets, one and many at once, hold no more memory than is allowed."""
    if not has_proc():
        raise NotApplicable("this system shows no memory of a process under /proc/self/status")
    config = target.directory / "memory.conf"
    config.write_text(f"[glance_store]\ntransfer_memory_limit = {MEMORY_LIMIT}\n")
    allowed = allowed_memory(target.chunk_size)
    size = target.settings.big_size
    adding = "add" in target.capabilities
    spec: dict[str, object] = {"warm": [], "ids": [], "uri": target.settings.known_uri}
    if adding:
        at_once = target.some((1, *_AT_ONCE), 2)
        ids = [[target.new_id(lent=True) for _ in range(each)] for each in at_once]
        spec = {"warm": [target.new_id(lent=True)], "ids": ids, "uri": None}
    spec |= {"size": size, "gets": MEMORY_GETS}
    with target.child_with([str(config)], "memory", **spec) as child:
        for each in child.messages():
            risen, limit = each["risen"] // _MIB, allowed[each["action"]] // _MIB
            expect(
                risen <= limit,
                f"{each['at_once']} {each['action']} at once: expected at most {limit} MiB more "
                f"memory (transfer_memory_limit = {MEMORY_LIMIT}), got {risen}",
            )
        status, complaints = child.end()
        expect_equal(status, 0, f"exit status of the measured process: {complaints[-2000:]}")


@check()
def check_stores_work_after_a_fork(target: Target) -> None:
    """Check 19: a forked child works with what it inherited, and disturbs nobody."""
    adding = "add" in target.capabilities
    _fork(target, "idle", 1, target.profile.long_size)
    if adding:
        _fork(target, "standing", 1, target.profile.long_size)
    _fork(target, "busy", 4 if target.settings.short else _FORKS, 10_000)


def _fork(target: Target, how: str, children: int, size: int) -> None:
    what = f"stores used before a fork ({how})"
    adding = "add" in target.capabilities
    # With the least memory, what the parent's transfers hold must not be held in the child.
    config = target.directory / "memory.conf"
    config.write_text("[glance_store]\ntransfer_memory_limit = 1\n")
    ids = [target.new_id(lent=True) for _ in range(2 + children)] if adding else []
    uri = None if adding else target.settings.known_uri
    told: list[dict[str, Any]] = []
    with target.child_with(
        [str(config)],
        "fork",
        **{"ids": ids, "uri": uri, "size": size, "how": how, "children": children},
        **{"enough": target.settings.check_timeout / 8, "least": min(children, _LEAST_FORKS)},
        limit=_FORKED,
    ) as child:
        told += child.messages()
        status, complaints = child.end()
    for each in told:
        if adding:
            for made in [each.get("uri"), *each.get("added", ())]:
                if made:
                    target.watch_uri(made)
    for each in told:
        wrong = each.get("child") or each.get("thread")
        expect(not wrong, f"{what}: expected child and parent to do their work, got {each}")
        expect(
            each.get("status", 0) is not None,
            f"{what}: expected the child to end within {_FORKED} s, it hung:\n{complaints[-5000:]}",
        )
        expect_equal(each.get("status", 0), 0, f"{what}: exit status of the child")
    expect_equal(status, 0, f"{what}: exit status of the parent: {complaints[-2000:]}")
    expect(told[-1]["reader"], f"{what}: expected the parent's open reader to go on rightly")
    expect(told[-1]["again"], f"{what}: expected the parent to read rightly afterwards")
    if how == "standing":
        expect_equal(len(told[-1]["added"]), 1, f"{what}: adds of the parent that ended rightly")


@check()
def check_many_threads_share_a_store(target: Target) -> None:
    """Check 19: 64 threads on one store each get what they put, or what is there."""
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
                target.expect_holds(uri, content, f"the object of thread {number}")
                if "delete" in target.capabilities:
                    target.store.delete(uri)
            if number % 4 == 0:
                target.expect_holds(known, known_content, f"thread {number}, reading the shared")
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [
        threading.Thread(target=work, args=(each,), daemon=True)
        for each in range(number_of_threads)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    expect(
        not wrong,
        f"{number_of_threads} threads: expected no error, got {len(wrong)}, such as {wrong[:3]}",
    )


def _error_classes(root: type[StoreError]) -> list[type[StoreError]]:
    found = [root]
    for each in root.__subclasses__():
        found += _error_classes(each)
    return list(dict.fromkeys(found))


@check()
def check_errors_pickle_with_all_they_tell(target: Target) -> None:
    """Check 19: every error comes through pickle and copy as it was, a driver's own too."""
    expect(exceptions.NotFound in _error_classes(StoreError), "expected the tree to be found")
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
            continue  # a driver's own, which is made in a way of its own
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
