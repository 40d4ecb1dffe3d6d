"""Adds whose process is killed: afterwards there is the whole object or none."""

import functools
from typing import Any

from store_lib.exceptions import Duplicate, ErrorStatus, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import InFlight
from store_lib.testing.target import Target

#: Shares of a usual commit's time after which the process is killed.
_MOMENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3)
#: How many adds are killed at least, however slow the store, and in the short profile in all.
_LEAST, _SHORT = 12, 10


def _plans(target: Target) -> list[dict[str, Any]]:
    """Return where each of the doomed processes is to die."""
    chunk, long = target.chunk_size, target.profile.long_size
    plans: list[dict[str, Any]] = []
    for declared in (True, False):
        places = {0, 1, chunk // 2, chunk, chunk + 1, 2 * chunk + 1, long - 1, long}
        places |= {target.random.randrange(long) for _ in range(4)}
        plans += [{"size": long, "at": at, "declared": declared} for at in sorted(places)]
        plans += [{"size": 1000, "at": at, "declared": declared} for at in (0, 500, 1000)]
        for size in (1000, long):
            plans.append({"size": size, "declared": declared, "measure": True})
            plans += [{"size": size, "declared": declared, "commit": each} for each in _MOMENTS]
    # A slow store has no time for all of them: first those that measure, then in any order.
    target.random.shuffle(plans)
    plans.sort(key=lambda plan: not plan.get("measure"))
    if target.settings.short:
        plans = plans[:_SHORT]
    for number, plan in enumerate(plans):
        plan.update(id=target.new_id(lent=True), seed=number)
    return plans


@check(needs="add")
def check_killed_adds_leave_all_or_nothing(target: Target) -> None:
    """Check 1: after kill -9 at any byte and around the commit, all of an object is there or none.

    A fresh process judges; an object that is not there can be added, and what the killed ones left
    unfinished can be swept.
    """
    plans = _plans(target)
    told: dict[str, dict[str, Any]] = {}
    least = _SHORT if target.settings.short else _LEAST
    enough = target.settings.check_timeout / 4
    with target.child("crash", plans=plans, enough=enough, least=least) as child:
        for message in child.messages():
            told[message["id"]] = message
        status, complaints = child.end()
        expect_equal(status, 0, f"exit status of the process whose children die: {complaints}")
    plans = [plan for plan in plans if plan["id"] in told]
    expect(len(plans) >= least, f"expected at least {least} killed adds, got {len(plans)}")
    for plan in plans:
        message = told[plan["id"]]
        expect(message["killed"], f"{plan}: expected it killed, got {message}")
        if "uri" in message:
            target.watch_uri(message["uri"])
    states = _inspect(target, plans, told)
    for plan in plans:
        what, state = f"an add killed so: {plan}", states[plan["id"]]["state"]
        if "uri" in told[plan["id"]]:
            expect_equal(state, "complete", f"{what}, after it was told to succeed")
        expect(state in ("absent", "complete"), f"{what}: expected all or nothing, got {state}")
        if states[plan["id"]]["uri"]:
            target.watch_uri(states[plan["id"]]["uri"])
    _add_again(target, plans[::2], states)
    _sweep(target, {plan["id"] for plan in plans})
    _add_again(target, plans[1::2], states)


def _inspect(
    target: Target, plans: list[dict[str, Any]], told: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Let a fresh process say what is there of each object."""
    objects = []
    for plan in plans:
        uris = [told[plan["id"]].get("uri"), target.profile.uri_of(plan["id"])]
        objects.append({**plan, "uris": [uri for uri in dict.fromkeys(uris) if uri]})
    with target.child("inspect", objects=objects) as child:
        states = {each["id"]: each for each in child.messages()}
        status, complaints = child.end()
        expect_equal(status, 0, f"exit status of the process that inspects: {complaints}")
    return states


def _add_again(
    target: Target, plans: list[dict[str, Any]], states: dict[str, dict[str, Any]]
) -> None:
    """Add under the ids of killed adds: possible if they are absent, Duplicate if complete."""
    for plan in plans:
        object_id = plan["id"]
        what = f"a new add after one killed so: {plan}"
        if states[object_id]["state"] == "complete":
            if "by_id" in target.profile.traits:
                with raises(Duplicate, doing=what):
                    target.add(Content(10, seed=90), object_id)
            continue
        made: list[str] = []
        content = Content(2000, seed=91)
        target.shortly(
            functools.partial(_try_to_add, target, content, object_id, made),
            what,
            target.settings.settle,
        )
        target.expect_holds(made[0], content, what)


def _try_to_add(target: Target, content: Content, object_id: str, made: list[str]) -> bool:
    """Add, unless the backend needs another moment to see that the killed process is gone."""
    try:
        made.append(target.add(content, object_id).uri)
    except StoreError as error:
        if isinstance(error, Duplicate) or error.status is not ErrorStatus.PERMANENT:
            return False
        raise
    return True


def _sweep(target: Target, own: set[str]) -> None:
    """Sweep what the killed adds left, unless the store holds somebody else's unfinished adds."""
    if not {"list_incomplete", "discard"} <= target.capabilities:
        return

    def of_ours() -> list[str]:
        return [
            each.key
            for each in target.leftovers()
            if each.object_id in own or (each.object_id is None and target.is_new(each))
        ]

    def swept() -> bool:
        before = target.leftovers()
        would = target.store.sweep(0, dry_run=True)
        strangers = [each for each in before if not target.is_new(each)]
        driver = target.store.driver
        assert driver is not None
        if strangers:
            for each in would:
                if each.object_id in own:
                    driver.discard(each, context=None)
        else:
            removed = target.store.sweep(0)
            # More than the dry run told, if the last sign of a killed one's life went meanwhile.
            others = {each.key for each in removed} - {each.key for each in before}
            expect(
                not others,
                f"a sweep: expected it to remove only what was listed before, got {len(others)} "
                f"others: {sorted(others)}",
            )
        return not of_ours()

    target.shortly(swept, "a sweep that leaves nothing of killed adds", target.settings.settle)
    expect_equal(of_ours(), [], "what killed adds left, after a sweep")


@check(needs="add list_incomplete discard")
def check_sweeps_leave_live_and_young_uploads_alone(target: Target) -> None:
    """Check 1: a sweep takes neither what shows life nor what is younger than asked."""
    size = target.profile.long_size
    content = Content(size, seed=5)
    object_id = target.new_id()
    with InFlight(target.store, object_id, content, at=size // 2) as add:
        target.shortly(
            lambda: (
                any(each.object_id == object_id for each in target.leftovers())
                or any(target.is_new(each) for each in target.leftovers())
            ),
            "an add at work among the incomplete uploads",
        )
        mine = [each for each in target.leftovers() if target.is_new(each)]
        for each in mine:
            expect(
                -60 < each.age < 3600,
                f"the age of {each.key}, which was just begun: expected seconds, got "
                f"{each.age:.0f}; is `now` of the clock that gave `modified`?",
            )
        with target.open() as others:
            store = others[target.store_id]
            young = {each.key for each in store.sweep(24 * 3600)}
            taken = young & {each.key for each in mine}
            expect_equal(taken, set(), "young uploads that a sweep of those older than a day took")
            live = {each.key for each in mine if each.live}
            would = {each.key for each in store.sweep(0, dry_run=True)}
            expect_equal(live & would, set(), "live uploads that a sweep would take")
            driver = store.driver
            assert driver is not None
            for each in mine:
                if each.live:
                    removed = driver.discard(each, context=None)
                    expect(not removed, f"discard of {each.key}: expected it to spare a live one")
        result = add.finish()
    target.watch_uri(result.uri)
    target.expect_holds(result.uri, content, "an add that was swept around")
