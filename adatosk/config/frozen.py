"""The base of every configuration: frozen, validated, and read strictly from JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adatosk.utils.strict import parse_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# PyTorch accepts no larger seed, and its counters are 64-bit.
LARGEST = 2**63 - 1


class Frozen(BaseModel):
    """A configuration that cannot be changed, only copied with changes; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    what: ClassVar[str] = "configuration"

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name, value in self:
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, int) and abs(part) > LARGEST:
                    raise ValueError(f"{name} has an integer beyond {LARGEST}: choose a smaller one")
        return self

    # pydantic's models are no dataclasses; theirs would only say that the instance is frozen.
    def __setattr__(self, name: str, value: Any) -> None:  # pyrefly: ignore[bad-class-definition]
        if name not in type(self).model_fields:
            known = ", ".join(type(self).model_fields)
            raise AttributeError(f"{type(self).__name__} has no field '{name}': it has {known}")
        raise AttributeError(
            f"a {type(self).__name__} cannot be changed, only copied with changes: say "
            f"options = options.change({name}={value!r})"
        )

    def change(self, **parts: Any) -> Self:
        """A validated copy with fields changed, as in ``run.change(model={"soft_mask": {"top_k": 2}}, seed=1)``.

        Dicts are merged into the current value, anything else replaces it; ``ValueError`` names every field that is
        unknown or wrong.
        """
        try:
            return type(self).model_validate(_merge(self.model_dump(), parts))
        except ValidationError as error:
            raise ValueError(self._in_words(error.errors())) from None

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a JSON file; ``ValueError`` names the file and every field that is wrong."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such {cls.what} file")
        try:
            return cls.model_validate(parse_json(path.read_bytes()))
        except ValidationError as error:
            # In the words of JSON: an object and an array, not a dictionary and a tuple.
            found: list[Any] = error.errors()
            in_json = ValidationError.from_exception_data(error.title, found, input_type="json").errors()
            raise ValueError(f"{path}: not a valid {cls.what}: {cls._in_words(in_json)}") from error
        except ValueError as error:
            raise ValueError(f"{path}: not a valid {cls.what}: {error}") from error

    @classmethod
    def _in_words(cls, faults: "list[ErrorDetails]") -> str:
        """Each field that is wrong, and why; for an unknown one, the fields that there are."""
        found = []
        for one in faults:
            said = one["msg"].removeprefix("Value error, ")
            if one["type"] == "extra_forbidden":
                owner = cls._at(one["loc"][:-1])
                said = f"{owner.__name__} has no such field: it has {', '.join(owner.model_fields)}"
            found.append(": ".join(filter(None, [".".join(map(str, one["loc"])), said])))
        return "; ".join(found)

    @classmethod
    def _at(cls, path: tuple[int | str, ...]) -> "type[Frozen]":
        """The configuration in a field of a field."""
        for name in path:
            kind = cls.model_fields[str(name)].annotation
            cls = next(one for one in (*get_args(kind), kind) if isinstance(one, type) and issubclass(one, Frozen))
        return cls


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merge(base.get(key), value) for key, value in changes.items()}
