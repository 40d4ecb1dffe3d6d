"""Makes ``import glance_store`` import :mod:`store_lib.glance`, as PyMySQL does for MySQLdb."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ALIAS = "glance_store"
_TARGET = "store_lib.glance"


def install_as_glance_store() -> None:
    """Make every later import of ``glance_store``, or of a module in it, import store_lib's.

    Call it before the service imports anything of its own.  Calling it again does nothing.

    :raises ImportError: the real glance_store is already imported
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if _ALIAS in sys.modules and sys.modules[_ALIAS].__name__ != _TARGET:
        raise ImportError(
            "Expected install_as_glance_store() to be called before glance_store is imported, "
            f"but {getattr(sys.modules[_ALIAS], '__file__', 'another module')} is already imported "
            "under that name. Call it first, in the script that the server loads."
        )
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds every module under both names, as the same object.

    An entry in ``sys.modules`` for the package alone would not do: its modules would be loaded
    a second time under the other name, and ``except`` clauses would not match the copies of the
    exception classes.
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
        """Let the import system make a placeholder, which ``exec_module`` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        # The import returns whatever a loader leaves in sys.modules.
        sys.modules[module.__name__] = importlib.import_module(_translated(module.__name__))


def _translated(name: str) -> str:
    return _TARGET + name[len(_ALIAS) :]
