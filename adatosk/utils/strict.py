"""JSON and YAML, read strictly: what two readers could take for different things is an error.

Of a field that is given twice, Python's readers silently take the last value. They also take NaN and Infinity, which
JSON does not have.
"""

import json
import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(content: bytes) -> Any:
    """JSON in UTF-8, with or without a byte-order mark.

    Raises:
        ValueError: it is something else, nested too deeply, has NaN or Infinity, half a surrogate pair, or a field
            twice.
    """
    try:
        found = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_refuse)
        if _SURROGATE.search(content):
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error}") from error
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair, which is no character") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the field '{name[:100]}' stands twice in one object: delete one of them")
        fields[name] = value
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number that JSON has")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes the last of several values, too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in names:
                problem = f"the field '{key.value[:100]}' stands twice: delete one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """YAML of plain values; it builds no objects.

    Raises:
        yaml.YAMLError: it is no YAML, or has a field twice.
        RecursionError: it is nested too deeply.
    """
    return yaml.load(text, Loader=_Loader)
