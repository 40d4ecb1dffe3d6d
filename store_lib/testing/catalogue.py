"""The registry of checks, and the claims of a store that each check requires."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from store_lib.testing.profile import Profile
    from store_lib.testing.target import Target

CheckFunction = TypeVar("CheckFunction", bound="Callable[[Target], None]")


@dataclasses.dataclass(frozen=True)
class Check:
    """A check function with the traits that a store must have, and must not have."""

    function: "Callable[[Target], None]"
    needs: frozenset[str]
    lacks: frozenset[str]

    @property
    def name(self) -> str:
        """The name of the function, which says what it checks."""
        return self.function.__name__

    def applies(self, profile: "Profile") -> bool:
        """Return whether the check applies to the store."""
        # Capabilities that the server lacks are neither checked nor held against the store.
        claimed = profile.traits | profile.unavailable.keys()
        return self.needs <= profile.traits and not self.lacks & claimed


_CHECKS: dict[str, Check] = {}


def check(*, needs: str = "", lacks: str = "") -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as a check.

    :param needs: traits that the store must have, separated by spaces (see
        :attr:`~store_lib.testing.profile.Profile.traits`)
    :param lacks: traits that the store must not have
    """

    def register(function: CheckFunction) -> CheckFunction:
        name = function.__name__
        if name in _CHECKS:
            raise ValueError(f"two checks are named {name}")
        _CHECKS[name] = Check(function, frozenset(needs.split()), frozenset(lacks.split()))
        return function

    return register


def registered() -> list[Check]:
    """Return the checks of all modules that have been imported."""
    return list(_CHECKS.values())
