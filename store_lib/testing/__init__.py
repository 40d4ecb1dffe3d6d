"""The conformance suite: checks that a store keeps the contract, whichever package it is from.

From the command line::

    pytest --pyargs store_lib.testing --store-config FILE --store ID

From Python, without pytest::

    profile = Profile(Settings(configs=("stores.conf",), store_id="fast"))
    profile.prepare()
    for check in checks_for(profile):
        run_check(check, profile)

A check is a plain function that takes a :class:`Target`.  It raises AssertionError with a message
that says what was expected and what happened.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store_lib.testing.catalogue import Check, check
    from store_lib.testing.checks import all_checks, checks_for
    from store_lib.testing.expect import NotApplicable
    from store_lib.testing.profile import Profile, Settings, SetupError
    from store_lib.testing.runner import run_check
    from store_lib.testing.target import Target

__all__ = [
    "Check",
    "NotApplicable",
    "Profile",
    "Settings",
    "SetupError",
    "Target",
    "all_checks",
    "check",
    "checks_for",
    "run_check",
]

_MODULES = {
    "Check": "catalogue",
    "NotApplicable": "expect",
    "Profile": "profile",
    "Settings": "profile",
    "SetupError": "profile",
    "Target": "target",
    "all_checks": "checks",
    "check": "catalogue",
    "checks_for": "checks",
    "run_check": "runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use: the pytest plugin imports this package in every run."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
