"""The base of all models of the config: strict, frozen, and wrong in plain words."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails

from actprobe.config.kinds import said
from actprobe.config.names import nearest

OneOf = tuple[tuple[str, ...], ...]
Needs = Mapping[str, tuple[str, ...]]


def absent() -> Any:
    """A key that is not there unless it is given; null is as if not given."""
    return Field(default=None, exclude_if=lambda value: value is None)


class Strict(BaseModel):
    """A mapping of known keys, read without conversions.

    The text below a field is its description, and that below the class the description of fields that
    hold one and say nothing themselves.

    Attributes
    ----------
    one_of:
        Keys of which one is wanted, or one group of keys, and not two.
    needs:
        Keys that a key cannot be without.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", validate_by_name=False)
    one_of: ClassVar[OneOf] = ()
    needs: ClassVar[Needs] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Says unknown keys by the nearest known one, and what excludes each other beside the rest."""
        faults: list[InitErrorDetails] = []
        made = None
        try:
            made = handler(value)
        except ValidationError as e:
            faults = [cls._again(detail) for detail in e.errors(include_url=False)]
        if isinstance(value, dict):
            faults += [
                {"type": said(text), "loc": (), "input": value} for text in cls.disagreements(value)
            ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made

    @classmethod
    def disagreements(cls, value: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong between the keys of a mapping, whatever else is wrong with it."""
        given = [k for k in value if value[k] is not None]
        groups = [found for keys in cls.one_of if (found := [k for k in keys if k in given])]
        if len(groups) > 1:
            yield f"{' and '.join(repr(found[0]) for found in groups)} exclude each other"
        elif cls.one_of and not groups:
            known = [k for keys in cls.one_of for k in keys]
            yield f"{' and '.join(map(repr, known))} missing: give one of them"
        for key, others in cls.needs.items():
            for other in others:
                if key in given and other not in given:
                    yield f"{other!r} is missing, which {key!r} needs"

    @classmethod
    def keys_known(cls) -> list[str]:
        """The keys as a config spells them."""
        return [f.alias or name for name, f in cls.model_fields.items()]

    @classmethod
    def _again(cls, detail: Any) -> InitErrorDetails:
        """A fault as it is raised anew."""
        loc, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
        if kind == "extra_forbidden" and len(loc) == 1:
            kind = said(f"unknown key {loc[0]!r}; {nearest(str(loc[0]), cls.keys_known())}")
            return {"type": kind, "loc": (), "input": {}}
        if kind == "said":
            kind = said(context["text"])
        return {"type": kind, "loc": loc, "input": detail["input"], "ctx": context}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema with the texts below the fields, and the keys that exclude each other."""
        node = handler.resolve_ref_schema(handler(core_schema))
        texts = descriptions(cls)
        for name, field in cls.model_fields.items():
            part = node["properties"][field.alias or name]
            if name in texts:
                part["description"] = texts[name]
            if field.exclude_if is not None:
                part.pop("default", None)
        if cls.one_of:
            given = [[{"required": [k], "properties": {k: {"not": {"type": "null"}}}} for k in keys]
                     for keys in cls.one_of]  # fmt: skip
            node["oneOf"] = [one[0] if len(one) == 1 else {"anyOf": one} for one in given]
        if cls.needs:
            node["dependentRequired"] = {k: list(v) for k, v in cls.needs.items()}
        return node


class Section(Strict, Mapping[str, Any]):
    """A model of the config that can also be read as the mapping that it was made from.

    That goes when all rooms read attributes.
    """

    _absent: ClassVar[frozenset[str]] = frozenset()
    _named: ClassVar[dict[str, str]] = {}  # attribute by key

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls._named = {f.alias or name: name for name, f in cls.model_fields.items()}
        cls._absent = frozenset(
            f.alias or name for name, f in cls.model_fields.items() if f.exclude_if is not None
        )

    def __getitem__(self, key: str) -> Any:
        value = self.__dict__[self._named[key]]
        if value is None and key in self._absent:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]  # pydantic's gives pairs
        values = self.__dict__
        for key, name in self._named.items():
            if values[name] is not None or key not in self._absent:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return dict(self) == dict(other)
        return NotImplemented

    def __or__(self, other: Mapping[str, Any]) -> Self:
        return self.model_copy(update=dict(other))


def plain(value: Any) -> Any:
    """Models, in whatever holds them, as the mappings that they were made from."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


@cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The text below each field of a model and of those it inherits from; read off the source."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, Strict) or cls in (Strict, Section):
            continue
        [tree] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = re.sub(r"\s+", " ", text.value.value).strip()
    return found
