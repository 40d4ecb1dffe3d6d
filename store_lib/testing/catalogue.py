"""The register of checks: each with the claims of a store that call for it."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from store_lib.testing.profile import Profile
    from store_lib.testing.target import Target

CheckFunction = TypeVar("CheckFunction", bound="Callable[[Target], None]")


@dataclasses.dataclass(frozen=True)
class Check:
    """A check function and what a store must claim, and must not, for it to be made."""

    function: "Callable[[Target], None]"
    needs: frozenset[str]
    lacks: frozenset[str]

    @property
    def name(self) -> str:
        """The function's name, which says what it proves."""
        return self.function.__name__

    def applies(self, profile: "Profile") -> bool:
        """Tell whether the store's claims call for this check."""
        # What a server withholds is neither checked nor held against the store's claims.
        had = profile.traits | profile.withheld.keys()
        return self.needs <= profile.traits and not self.lacks & had


_CHECKS: dict[str, Check] = {}


def check(*, needs: str = "", lacks: str = "") -> Callable[[CheckFunction], CheckFunction]:
    """Put a function into the list.

    :param needs: traits (see :attr:`~store_lib.testing.profile.Profile.traits`), separated by
        spaces, all of which the store must have
    :param lacks: traits of which it must have none
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
