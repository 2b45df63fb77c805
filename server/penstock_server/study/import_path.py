"""Classes and functions of the user, named in the study file as "package.module:Name"."""

from __future__ import annotations

import importlib
from typing import Any

from penstock_client.errors import PenstockError
from penstock_client.nearest import nearest


class ImportPathError(PenstockError):
    """The import path is malformed, its module cannot be imported, or the module has no such name."""


def load_import_path(path: str) -> Any:
    """Import the object that "package.module:Name" names.

    The caller puts the study file's folder on sys.path first, so that modules beside the study file are found.

    Args:
        path: the import path.

    Returns:
        The class or function.

    Raises:
        ImportPathError: the path is malformed, the module cannot be imported, or it has no such name.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name.isidentifier()):
        raise ImportPathError(f'{path!r}: expected "package.module:Name", such as "my_model:Net"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ImportPathError(
                f"{path!r}: importing {module_name} failed: {error}; install what it needs"
            ) from error
        raise ImportPathError(
            f"{path!r}: no module named {error.name!r}; put {error.name}.py beside the study file or install "
            "its package"
        ) from error
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ImportPathError(
            f"{path!r}: importing {module_name} failed: {type(error).__name__}: {error}; fix the module"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError:
        public = [n for n in vars(module) if not n.startswith("_")]
        hint = nearest(name, public) if public else "the module is empty"
        raise ImportPathError(f"{path!r}: module {module_name} has no {name!r}; {hint}") from None
