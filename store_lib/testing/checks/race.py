"""Concurrent adds of the same id: the driver's ``create_only`` claim must hold."""

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from store_lib import CreateOnly
from store_lib.exceptions import Duplicate
from store_lib.testing.catalogue import check
from store_lib.testing.children import Child
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import FileLike, PausedAdd
from store_lib.testing.target import Target

_PROCESSES = 8
_ROUNDS = 3


@check(needs="add")
def check_racing_processes_keep_the_claimed_guarantee(target: Target) -> None:
    """Check 3: eight processes add the same id with different bytes at the same time."""
    with contextlib.ExitStack() as stack:
        number_of_processes = 4 if target.settings.short else _PROCESSES
        children = [stack.enter_context(target.child("race")) for _ in range(number_of_processes)]
        for child in children:
            child.receive()
        rounds = 2 if target.settings.short else _ROUNDS
        for size in (1000, target.profile.long_size):
            for number in range(rounds):
                # In the last round the sources do not wait for each other at their ends.
                _race(target, children, size, held=0.0 if number == rounds - 1 else 0.15)


def _race(
    target: Target,
    children: list[Child],
    size: int,
    held: float = 0.0,
    copied: Sequence[str] | None = None,
) -> None:
    """Let all children add, or copy an object of ``copied``, under the same id."""
    object_id = target.new_id(for_worker=True)
    start = time.monotonic() + 0.05
    for seed, child in enumerate(children):
        origin = copied[seed] if copied else None
        moments = {"start": start, "meet": start + held}
        child.send(id=object_id, size=size, seed=seed, origin=origin, **moments)
    results = [child.receive() for child in children]
    contents = [Content(size, seed) for seed in range(len(children))]
    winners = [seed for seed, result in enumerate(results) if result["won"]]
    verb = "copy" if copied else "add"
    what = f"{len(children)} processes that {verb} {size} bytes under the same id"
    for seed in winners:
        target.track_uri(results[seed]["uri"])
    losses = {result["error"] for result in results if not result["won"]}
    if target.create_only is CreateOnly.NEW_LOCATION:
        expect_equal(losses, set(), f"{what} (new_location): errors")
        expect_equal(
            len({result["uri"] for result in results}),
            len(results),
            f"{what} (new_location): different URIs",
        )
        for seed in winners:
            target.expect_content(results[seed]["uri"], contents[seed], what)
        return
    texts = sorted({result["text"] for result in results if not result["won"]})
    expect(
        losses <= {"Duplicate"}, f"{what}: expected Duplicate for the losers, got {losses}: {texts}"
    )
    claim = target.create_only.value
    if target.create_only is CreateOnly.ATOMIC:
        expect_equal(len(winners), 1, f"{what} ({claim}): successful adds")
    else:
        expect(
            len(winners) <= 1,
            f"{what} ({claim}): expected at most one successful add, got {len(winners)}",
        )
    if not winners:  # all adds failed; then nothing may be stored
        target.expect_not_added(object_id, what)
        return
    uri = results[winners[0]]["uri"]
    target.expect_content(uri, contents[winners[0]], f"{what}: the object of the winner")
    with raises(Duplicate, doing=f"{what}: another add afterwards"):
        target.add(Content(10, seed=99), object_id)
    target.expect_content(uri, contents[winners[0]], f"{what}: the object after another add")
    target.expect_no_upload(object_id, what)


@check(needs="add copy")
def check_racing_copies_keep_the_claimed_guarantee(target: Target) -> None:
    """Check 3: four processes copy different objects to the same id at the same time."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(target.child("race")) for _ in range(4)]
        for size in (1000, target.profile.long_size):
            origins = [target.add(Content(size, seed)).uri for seed in range(len(children))]
            if size == 1000:
                for child in children:
                    child.receive()
            for _ in range(1 if target.settings.short else _ROUNDS):
                _race(target, children, size, copied=origins)


@check(needs="add")
def check_racing_threads_have_one_winner(target: Target) -> None:
    """Check 3: of concurrent adds of an id in a process, one succeeds and the others raise."""
    size = target.profile.long_size
    content = Content(size, seed=1)
    object_id = target.new_id()
    with PausedAdd(target.store, object_id, content, at=size // 2) as add:
        source = FileLike(Content(10, seed=2))
        with raises(Duplicate, doing="an add of an id that is being added"):
            target.add(source, object_id)
        expect_equal(source.reads, 0, "an add of an id that is being added: reads of its source")
        result = add.finish()
    target.track_uri(result.uri)
    target.expect_content(result.uri, content, "the add that began first")
    object_id = target.new_id()
    begin = threading.Barrier(8)
    outcomes: list[Any] = []

    def race(seed: int) -> None:
        begin.wait()
        try:
            outcomes.append((seed, target.add(Content(1000, seed), object_id)))
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=race, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    wrong = [repr(error) for error in errors if not isinstance(error, Duplicate)]
    expect_equal(wrong, [], "errors other than Duplicate from threads that add the same id")
    winners = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
    if target.create_only is not CreateOnly.NEW_LOCATION:
        expect_equal(len(winners), 1, "successful threads")
    for seed, result in winners:
        target.expect_content(result.uri, Content(1000, seed), "the object of a successful thread")
