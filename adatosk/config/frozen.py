"""The base of every configuration: frozen, validated, and read strictly from JSON."""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adatosk.utils.strict import parse_json

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

        Dicts are merged into the current value, anything else replaces it; ``ValueError`` for an unknown field.
        """
        return type(self).model_validate(_merge(self.model_dump(), parts))

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
            faults = [f"{'.'.join(map(str, one['loc'])) or 'all'}: {one['msg']}" for one in in_json]
            raise ValueError(f"{path}: not a valid {cls.what}: {'; '.join(faults)}") from error
        except ValueError as error:
            raise ValueError(f"{path}: not a valid {cls.what}: {error}") from error


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: _merge(base.get(key), value) for key, value in changes.items()}
