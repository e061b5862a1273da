"""The JSON Schema of a config, for editors and for the reference page."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from actprobe.config.general import Config


class _Untitled(GenerateJsonSchema):
    """Without titles, which would repeat the names of the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        """Names that the pattern does not fit are wrong, not free."""
        found = super().dict_schema(schema)
        for pattern, below in found.pop("patternProperties", {}).items():
            found |= {"propertyNames": {"pattern": pattern}, "additionalProperties": below}
        return found


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a config as it is written, with the text of every key."""
    found = Config.model_json_schema(schema_generator=_Untitled)
    return {"$schema": _Untitled.schema_dialect, **found}
