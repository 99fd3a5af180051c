"""How users add a frame distance or a semantic score under a name."""

from collections.abc import Callable


def register(functions: dict[str, Callable], allow: Callable[[str], object], name: str) -> Callable:
    """Decorator that adds a function to ``functions`` and its name to those that ``allow`` lets a configuration use.

    Raises:
        ValueError: the name is taken.
    """

    def add(function: Callable) -> Callable:
        if name in functions or name in ("classification", "none"):
            raise ValueError(f"'{name}' is taken: register it under another name")
        functions[name] = function
        allow(name)
        return function

    return add
