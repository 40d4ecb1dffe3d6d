"""Adds of one id that race: held to exactly what the driver claims."""

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
from store_lib.testing.sources import InFlight, Untouched
from store_lib.testing.target import Target

_PROCESSES = 8
_ROUNDS = 3


@check(needs="add")
def check_racing_processes_keep_the_claimed_guarantee(target: Target) -> None:
    """Check 3: eight processes add one id with bytes of their own, begun and ended together."""
    with contextlib.ExitStack() as stack:
        number_of_processes = 4 if target.settings.short else _PROCESSES
        children = [stack.enter_context(target.child("race")) for _ in range(number_of_processes)]
        for child in children:
            child.hear()
        rounds = 2 if target.settings.short else _ROUNDS
        for size in (1000, target.profile.long_size):
            for number in range(rounds):
                # Bytes end at the same moment, or whenever they do.
                _race(target, children, size, held=0.0 if number == rounds - 1 else 0.15)


def _race(
    target: Target,
    children: list[Child],
    size: int,
    held: float = 0.0,
    copied: Sequence[str] | None = None,
) -> None:
    """Let all children add, or copy what each is given, under one id."""
    object_id = target.new_id(lent=True)
    start = time.monotonic() + 0.05
    for seed, child in enumerate(children):
        origin = copied[seed] if copied else None
        moments = {"start": start, "meet": start + held}
        child.tell(id=object_id, size=size, seed=seed, origin=origin, **moments)
    told = [child.hear() for child in children]
    contents = [Content(size, seed) for seed in range(len(children))]
    winners = [seed for seed, each in enumerate(told) if each["won"]]
    what = f"{len(children)} processes that {'copy' if copied else 'add'} {size} bytes under one id"
    for seed in winners:
        target.watch_uri(told[seed]["uri"])
    losses = {each["error"] for each in told if not each["won"]}
    if target.create_only is CreateOnly.NEW_LOCATION:
        expect_equal(losses, set(), f"{what} (new_location): errors")
        expect_equal(
            len({each["uri"] for each in told}), len(told), f"{what} (new_location): locations"
        )
        for seed in winners:
            target.expect_holds(told[seed]["uri"], contents[seed], what)
        return
    texts = sorted({each["text"] for each in told if not each["won"]})
    expect(losses <= {"Duplicate"}, f"{what}: expected Duplicate for losers, got {losses}: {texts}")
    claim = target.create_only.value
    if target.create_only is CreateOnly.ATOMIC:
        expect_equal(len(winners), 1, f"{what} ({claim}): adds that were told success")
    else:
        expect(
            len(winners) <= 1,
            f"{what} ({claim}): expected that losers are told, got success for {len(winners)}",
        )
    if not winners:  # the race cost all of them; then there must be nothing
        target.expect_not_added(object_id, what)
        return
    uri = told[winners[0]]["uri"]
    target.expect_holds(uri, contents[winners[0]], f"{what}: the bytes of the one told success")
    with raises(Duplicate, doing=f"{what}: one more add, later"):
        target.add(Content(10, seed=99), object_id)
    target.expect_holds(uri, contents[winners[0]], f"{what}: the object after one more add")
    target.shortly_none(
        lambda: [each.key for each in target.leftovers() if each.object_id == object_id],
        f"{what}: incomplete uploads",
    )


@check(needs="add copy")
def check_racing_copies_keep_the_claimed_guarantee(target: Target) -> None:
    """Check 3: processes that each copy an object within the backend to one id, all at once."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(target.child("race")) for _ in range(4)]
        for size in (1000, target.profile.long_size):
            origins = [target.add(Content(size, seed)).uri for seed in range(len(children))]
            if size == 1000:
                for child in children:
                    child.hear()
            for _ in range(1 if target.settings.short else _ROUNDS):
                _race(target, children, size, copied=origins)


@check(needs="add")
def check_racing_threads_have_one_winner(target: Target) -> None:
    """Check 3: of adds of one id at once in one process, one goes on and the others are told."""
    size = target.profile.long_size
    content = Content(size, seed=1)
    object_id = target.new_id()
    with InFlight(target.store, object_id, content, at=size // 2) as add:
        source = Untouched(Content(10, seed=2))
        with raises(Duplicate, doing="an add of an id that is being added"):
            target.add(source, object_id)
        expect_equal(source.reads, 0, "an add of an id that is being added: reads of its source")
        result = add.finish()
    target.watch_uri(result.uri)
    target.expect_holds(result.uri, content, "the add that was there first")
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
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    wrong = [repr(each) for each in errors if not isinstance(each, Duplicate)]
    expect_equal(wrong, [], "errors other than Duplicate from threads that add one id")
    winners = [each for each in outcomes if isinstance(each, tuple)]
    if target.create_only is not CreateOnly.NEW_LOCATION:
        expect_equal(len(winners), 1, "threads that were told success")
    for seed, result in winners:
        target.expect_holds(result.uri, Content(1000, seed), "the bytes of a winning thread")
