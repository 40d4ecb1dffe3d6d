"""Adds whose process is killed: afterwards the object is complete or absent."""

import functools
from typing import Any

from store_lib.exceptions import Duplicate, ErrorStatus, StoreError
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import PausedAdd
from store_lib.testing.target import Target

#: Fractions of the usual time of a commit after which a process is killed.
_FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3)
#: Number of adds to kill: the minimum on a slow store, and all in the short profile.
_MINIMUM, _SHORT = 12, 10


def _plans(target: Target) -> list[dict[str, Any]]:
    """Return a plan for each process to kill."""
    chunk, long = target.chunk_size, target.profile.long_size
    plans: list[dict[str, Any]] = []
    for declared in (True, False):
        places = {0, 1, chunk // 2, chunk, chunk + 1, 2 * chunk + 1, long - 1, long}
        places |= {target.random.randrange(long) for _ in range(4)}
        plans += [{"size": long, "at": at, "declared": declared} for at in sorted(places)]
        plans += [{"size": 1000, "at": at, "declared": declared} for at in (0, 500, 1000)]
        for size in (1000, long):
            plans.append({"size": size, "declared": declared, "measure": True})
            plans += [{"size": size, "declared": declared, "commit": part} for part in _FRACTIONS]
    # On a slow store not all are tried: first those that measure, then one that dies in the middle
    # of its bytes, then the others at random.
    target.random.shuffle(plans)
    middle = next(plan for plan in plans if 1 < plan.get("at", 0) < plan["size"] - 1)
    plans.sort(key=lambda plan: (not plan.get("measure"), plan is not middle))
    if target.settings.short:
        plans = plans[:_SHORT]
    for number, plan in enumerate(plans):
        plan.update(id=target.new_id(for_worker=True), seed=number)
    return plans


@check(needs="add")
def check_killed_adds_leave_all_or_nothing(target: Target) -> None:
    """Check 1: after kill -9 at any byte or during the commit, an object is complete or absent.

    Another process inspects the store.  Absent objects can then be added, and the incomplete
    uploads of the killed processes can be swept.
    """
    plans = _plans(target)
    reports: dict[str, dict[str, Any]] = {}
    least = _SHORT if target.settings.short else _MINIMUM
    enough = target.settings.check_timeout / 4
    with target.child("crash", plans=plans, enough=enough, least=least) as child:
        for message in child.messages():
            reports[message["id"]] = message
        status, stderr = child.wait()
        expect_equal(status, 0, f"exit status of the process that forks: {stderr}")
    plans = [plan for plan in plans if plan["id"] in reports]
    expect(len(plans) >= least, f"expected at least {least} killed adds, got {len(plans)}")
    for plan in plans:
        message = reports[plan["id"]]
        expect(message["killed"], f"{plan}: expected the process to be killed, got {message}")
        if "uri" in message:
            target.track_uri(message["uri"])
    states = _inspect(target, plans, reports)
    for plan in plans:
        what, state = f"an add killed as in {plan}", states[plan["id"]]["state"]
        if "uri" in reports[plan["id"]]:
            expect_equal(state, "complete", f"{what}, after the add had succeeded")
        expect(state in ("absent", "complete"), f"{what}: expected all or nothing, got {state}")
        if states[plan["id"]]["uri"]:
            target.track_uri(states[plan["id"]]["uri"])
    _add_again(target, plans[::2], states)
    _sweep(target, {plan["id"] for plan in plans})
    _add_again(target, plans[1::2], states)


def _inspect(
    target: Target, plans: list[dict[str, Any]], reports: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the state of each object as another process finds it."""
    objects = []
    for plan in plans:
        uris = [reports[plan["id"]].get("uri"), target.profile.uri_of(plan["id"])]
        objects.append({**plan, "uris": [uri for uri in dict.fromkeys(uris) if uri]})
    with target.child("inspect", objects=objects) as child:
        states = {message["id"]: message for message in child.messages()}
        status, stderr = child.wait()
        expect_equal(status, 0, f"exit status of the process that inspects: {stderr}")
    return states


def _add_again(
    target: Target, plans: list[dict[str, Any]], states: dict[str, dict[str, Any]]
) -> None:
    """Add objects under the ids of killed adds; complete ones must raise Duplicate."""
    for plan in plans:
        object_id = plan["id"]
        what = f"a new add after one killed as in {plan}"
        if states[object_id]["state"] == "complete":
            if "by_id" in target.profile.traits:
                with raises(Duplicate, doing=what):
                    target.add(Content(10, seed=90), object_id)
            continue
        uris: list[str] = []
        content = Content(2000, seed=91)
        target.eventually(
            functools.partial(_try_to_add, target, content, object_id, uris),
            what,
            target.settings.settle,
        )
        target.expect_content(uris[0], content, what)


def _try_to_add(target: Target, content: Content, object_id: str, uris: list[str]) -> bool:
    """Try to add; return false if the backend has not noticed the end of the process yet."""
    try:
        uris.append(target.add(content, object_id).uri)
    except StoreError as error:
        if isinstance(error, Duplicate) or error.status is not ErrorStatus.PERMANENT:
            return False
        raise
    return True


def _sweep(target: Target, own: set[str]) -> None:
    """Sweep the uploads of the killed adds; if the store has others, discard one by one."""
    if not {"list_incomplete", "discard"} <= target.capabilities:
        return

    def own_uploads() -> list[str]:
        return target.uploads_of(*own, or_unknown=True)

    def swept() -> bool:
        before = target.incomplete_uploads()
        candidates = target.store.sweep(0, dry_run=True)
        foreign = [upload for upload in before if not target.is_new(upload)]
        driver = target.store.driver
        assert driver is not None
        if foreign:
            for upload in candidates:
                if upload.object_id in own:
                    driver.discard(upload, context=target.store.make_context())
        else:
            removed = target.store.sweep(0)
            # More than in the dry run, if a lease of a killed process has expired meanwhile.
            others = {upload.key for upload in removed} - {upload.key for upload in before}
            expect(
                not others,
                f"a sweep: expected it to remove only uploads that were listed before, got others: "
                f"{sorted(others)}",
            )
        return not own_uploads()

    target.eventually(
        swept, "a sweep that removes all uploads of killed adds", target.settings.settle
    )
    expect_equal(own_uploads(), [], "uploads of killed adds after a sweep")


@check(needs="add list_incomplete discard")
def check_sweeps_leave_live_and_young_uploads_alone(target: Target) -> None:
    """Check 1: a sweep spares live uploads, and uploads younger than the given age."""
    size = target.profile.long_size
    content = Content(size, seed=5)
    object_id = target.new_id()
    with PausedAdd(target.store, object_id, content, at=size // 2) as add:
        target.eventually(
            lambda: any(map(target.is_new, target.incomplete_uploads())),
            "an add in progress among the incomplete uploads",
        )
        own = [upload for upload in target.incomplete_uploads() if target.is_new(upload)]
        for upload in own:
            expect(
                -60 < upload.age < 3600,
                f"the age of {upload.key}, which has just begun: expected a few seconds, got "
                f"{upload.age:.0f}; are `now` and `modified` of the same clock?",
            )
        with target.open() as others:
            store = others[target.store_id]
            swept = {upload.key for upload in store.sweep(24 * 3600)}
            young = swept & {upload.key for upload in own}
            expect_equal(young, set(), "new uploads removed by a sweep of those older than a day")
            live = {upload.key for upload in own if upload.live}
            candidates = {upload.key for upload in store.sweep(0, dry_run=True)}
            expect_equal(live & candidates, set(), "live uploads that a sweep would remove")
            driver = store.driver
            assert driver is not None
            for upload in own:
                if upload.live:
                    removed = driver.discard(upload, context=store.make_context())
                    expect(
                        not removed, f"discard of {upload.key}: expected it to spare a live upload"
                    )
        result = add.finish()
    target.track_uri(result.uri)
    target.expect_content(result.uri, content, "an add during sweeps")
