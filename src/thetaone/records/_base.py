"""The frozen, versioned record from which all data that crosses a room derives."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from thetaone.errors import RecordError
from thetaone.records._notebook import notebook_html
from thetaone.records._paths import local_path


class Record(BaseModel):
    """A frozen value with a version that can be written to JSON and read back equal.

    A diverged loss (NaN, inf) survives the round trip. The JSON carries ``record`` (the class
    name), ``version`` and a ``digest`` of the values; reading another kind, another version or
    changed values raises ``RecordError``.

    Examples:
        >>> class Point(Record):
        ...     x: float
        >>> Point.from_json(Point(x=float("inf")).to_json())
        Point(x=inf)
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", arbitrary_types_allowed=False
    )
    version: ClassVar[int] = 1
    renderer: ClassVar[str] = ""  # "module:function" that draws the record with matplotlib

    @model_serializer(mode="wrap")
    def _stamp(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {"record": type(self).__name__, "version": self.version, **fields}

    @model_validator(mode="before")
    @classmethod
    def _check_stamp(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "record" not in data:
            return cast(object, data)
        fields = dict(cast(dict[str, Any], data))
        kind, version = fields.pop("record"), fields.pop("version", None)
        fields.pop("digest", None)  # compared where text is read
        if kind != cls.__name__:
            raise ValueError(f"this is a {kind} record; expected {cls.__name__}")
        if version != cls.version:
            raise ValueError(
                f"{kind} record of version {version}; this thetaone reads version {cls.version}. "
                "Read it with the release that wrote it, or make it anew"
            )
        return fields

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with some fields replaced; what is replaced is checked as by the constructor.

        Raises:
            RecordError: A field that the record does not have, or a value that it may not have.

        Examples:
            >>> class Point(Record):
            ...     x: float
            >>> Point(x=1.0).model_copy(update={"x": 2})
            Point(x=2.0)
        """
        same = super().model_copy(deep=deep)
        if not update:
            return same
        fields = {name: getattr(same, name) for name in same.model_fields_set}
        try:
            return type(self)(**{**fields, **update})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the fields together"
            raise RecordError(
                f"model_copy(update=…) of a {type(self).__name__}: {place}: {first['msg']}"
            ) from error

    def unchecked_copy(self, **update: Any) -> Self:
        """A copy, with some fields replaced by values that are right by construction.

        Examples:
            >>> class Point(Record):
            ...     x: float
            >>> Point(x=1.0).unchecked_copy(x=2.0)
            Point(x=2.0)
        """
        same = super().model_copy(update=update)
        for name in vars(same).keys() - type(self).model_fields.keys():
            del vars(same)[name]  # what cached properties made of the fields before
        return same

    def to_json(self, path: str | Path | None = None) -> str:
        """The record as JSON text; also written to ``path`` when one is given.

        Its last entry is a ``digest`` of the others, by which ``from_json`` sees damage.
        """
        data = json.loads(self.model_dump_json())
        text = json.dumps({**data, "digest": _digest(data)}, indent=2, ensure_ascii=False)
        if path is not None:
            local_path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read a record from JSON text or from a file.

        Args:
            source: JSON text (starts with ``{``) or the path of a file.

        Raises:
            RecordError: Not JSON, another kind of record, another version, a bad field, or other
                values than were written. One that was written by hand has no ``digest``.
        """
        text, where = str(source), "the given text"
        if not text.lstrip().startswith("{"):
            where = str(source)
            try:
                text = local_path(source).read_text(encoding="utf-8")
            except (OSError, ValueError, MemoryError) as error:  # absent, not UTF-8, or too large
                raise RecordError(f"cannot read {cls.__name__} from {where}: {error}") from error
        try:
            data: Any = json.loads(text)
            record = cls.model_validate(data)
            fields = cast(dict[str, Any], data)
            written = fields.pop("digest", None)
            actual = _digest(fields)
        except RecursionError:
            raise RecordError(
                f"{where} is not a {cls.__name__} record: nested too deeply"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{part}." for part in first["loc"])[:-1]
            problem = first["msg"].removeprefix("Value error, ")
            raise RecordError(
                f"{where} is not a {cls.__name__} record: {place}{': ' if place else ''}{problem}"
            ) from error
        except (ValueError, MemoryError) as error:  # not JSON, or a number of too many digits
            raise RecordError(f"{where} is not JSON: {error}") from error
        if written is not None and written != actual:
            raise RecordError(
                f"{where}: the {cls.__name__} record was changed after it was written (its digest "
                f"is {written}, that of its values {actual}). Restore a copy; if you changed it by "
                'hand, remove the entry "digest"'
            )
        return record

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the printed text with its tables as HTML, and the picture.

        None where the record prints nothing of its own.
        """
        if type(self).__str__ is Record.__str__ and not self.renderer:
            return None
        return notebook_html(self, picture=bool(self.renderer))

    def plot(self, **options: Any) -> Any:
        """Draw the record with matplotlib and return the figure.

        The one call that points upward: the renderer is named by the record (``renderer``) and
        looked up when called, so that ``records`` imports neither ``report`` nor matplotlib.

        Raises:
            RecordError: This kind of record has no picture.
            MissingExtraError: matplotlib is not installed.
        """
        if not self.renderer:
            raise RecordError(f"a {type(self).__name__} record has no picture")
        module, _, function = self.renderer.partition(":")
        return getattr(importlib.import_module(module), function)(self, **options)


def _digest(data: Any) -> str:
    """Of JSON values, however they are laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
