"""A notebook's parameters, checked, because papermill only warns about unknown ones."""

import ast
import types
from collections.abc import MutableMapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

# Names that a fresh kernel and papermill define beside the parameters.
_KERNEL_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def _assigned_with(names: set[str], namespace: MutableMapping[str, Any]) -> set[str]:
    """What the cell that assigned all of ``names`` last, in a kernel that remembers its cells, assigned altogether."""
    for source in reversed(namespace.get("In", [])):
        try:
            statements = ast.parse(source).body
        except SyntaxError:  # the kernel remembers what failed, too
            continue
        targets = {name for one in statements for name in names_assigned(one)}
        if names <= targets:
            return targets
    return set()


def names_assigned(statement: ast.stmt) -> set[str]:
    """The names that a statement assigns: ``a = 1``, ``a, b = 1, 2``, or ``a: int = 1`` with its type."""
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    else:
        return set()
    nodes = [node for target in targets for node in ast.walk(target)]
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def read_parameters(namespace: MutableMapping[str, Any], **expected: Any) -> types.SimpleNamespace:
    """Check a notebook's parameters, and return them.

    Call it in the cell after the parameters, as ``read_parameters(globals(), profile=Profile, seed=int)``.

    Args:
        namespace: the notebook's globals.
        **expected: each parameter's type.

    Raises:
        NameError: a variable is not a parameter of this notebook; the message lists those that are.
        TypeError: a value has the wrong type.
    """
    given = {
        name: value
        for name, value in namespace.items()
        if not (name.startswith("_") or name in _KERNEL_NAMES or callable(value) or isinstance(value, types.ModuleType))
    }
    # When the cell is run again, the notebook's own variables exist, too: then the cell of the parameters says which.
    seen = _assigned_with(set(expected), namespace) if "_parameters_seen" in namespace else set(given)
    unknown = sorted(seen - set(expected))
    if unknown:
        raise NameError(f"unknown parameter {', '.join(unknown)}: this notebook has {', '.join(sorted(expected))}")
    namespace["_parameters_seen"] = True
    for name, kind in expected.items():
        try:
            TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(given[name])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise TypeError(f"parameter {name}={given[name]!r}: {reason}") from error
    return types.SimpleNamespace(**{name: given[name] for name in expected})
