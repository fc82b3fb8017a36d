"""Makes Keras know this package's classes as soon as both are imported, in either order."""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def after_keras(package: str, load: Callable[[], None]) -> None:
    """Loads what registers classes with Keras, as soon as Keras is imported.

    Args:
        package: Name of the package that holds the classes.
        load: Imports them.
    """
    if "keras" in sys.modules:
        load()
    else:
        sys.meta_path.insert(0, _Registrar(package, load))


class _Registrar(importlib.abc.MetaPathFinder):
    """Finds Keras and the parts of a package as other finders do, to act after them.

    A part of the package may be what imports Keras. It is not whole then, and others need it: the
    classes are loaded after the outermost of these modules.
    """

    def __init__(self, package: str, load: Callable[[], None]) -> None:
        self.package, self.load = package, load
        self.executing = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras" and not name.startswith(f"{self.package}."):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._act_after(spec.loader)
        return spec

    def _act_after(self, loader: importlib.abc.Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.executing += 1
            try:
                execute(module)
            finally:
                self.executing -= 1
            if not self.executing and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                self.load()

        loader.exec_module = exec_module
