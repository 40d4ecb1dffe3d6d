"""Makes ``import glance_store`` mean :mod:`store_lib.glance`, as PyMySQL does for MySQLdb."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ALIAS = "glance_store"
_TARGET = "store_lib.glance"

#: Modules that have a better name here.
_RENAMED = {"glance_store.common.utils": "store_lib.glance.common.pieces"}


def install_as_glance_store() -> None:
    """Let every later import of ``glance_store``, or of a module in it, give store_lib's.

    To be called before the service imports anything of its own; calling it again does nothing.

    :raises ImportError: the real glance_store has been imported already
    """
    if any(isinstance(each, _Finder) for each in sys.meta_path):
        return
    if _ALIAS in sys.modules and sys.modules[_ALIAS].__name__ != _TARGET:
        raise ImportError(
            "Expected install_as_glance_store() to be called before glance_store is imported, "
            f"got one from {getattr(sys.modules[_ALIAS], '__file__', 'somewhere')} already. Call "
            "it first of all, in the script that the server loads."
        )
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds each module of the one name under the other, as the very same object.

    An entry in ``sys.modules`` for the package alone would not do: its modules would be loaded
    a second time under the other name, with exceptions that nobody catches.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _ALIAS and not name.startswith(f"{_ALIAS}."):
            return None
        if importlib.util.find_spec(_translated(name)) is None:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the module that stands in while this one is loaded to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        # What a loader leaves here is what the import gives.
        sys.modules[module.__name__] = importlib.import_module(_translated(module.__name__))


def _translated(name: str) -> str:
    return _RENAMED.get(name) or _TARGET + name[len(_ALIAS) :]
