"""What an OpenAPI document promises, checked against the app that serves it.

`problems` is a small JSON Schema validator of what msgspec's schemas use: no more is needed, and a
keyword that it does not know is a problem of its own.
"""

import re
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

KNOWN = {
    "$ref", "anyOf", "type", "enum", "const", "properties", "required", "items", "title",
    "description", "default", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "additionalProperties",
}  # fmt: skip
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "array": (list,), "object": (dict,), "null": (type(None),),
}  # fmt: skip
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def check(document: dict[str, Any], app: Starlette) -> None:
    """The document and the app have the same routes; every reference leads somewhere; every
    example fits its schema; names are unique."""
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= document["info"].keys()
    served = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and route.path not in ("/openapi.json", "/docs")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(app.routes) == len({route.path for route in app.routes})  # type: ignore[attr-defined]
    told = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    assert told == served
    operations = [
        (path, one)
        for part in ("paths", "webhooks")
        for path, methods in document.get(part, {}).items()
        for one in methods.values()
    ]
    names = [one["operationId"] for _, one in operations]
    assert len(names) == len(set(names))
    for reference in references(document):
        assert resolve(document, reference), reference
    examples = 0
    for path, one in operations:
        _check_parameters(path, one)
        assert one["responses"], path
        for media in contents(one):
            if "example" in media:
                examples += 1
                found = list(problems(document, media["schema"], media["example"]))
                assert found == [], (path, found)
    assert examples > len(operations) / 2


def _check_parameters(path: str, operation: dict[str, Any]) -> None:
    in_path = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path)), path
    for one in operation.get("parameters", ()):
        assert one["required"] or one["in"] != "path"


def contents(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every body of an operation."""
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for reply in operation["responses"].values():
        yield from reply.get("content", {}).values()


def references(value: Any) -> Iterator[str]:
    """Yield every $ref in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Return what a reference of this document means."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def problems(document: dict[str, Any], schema: dict[str, Any], value: Any) -> Iterator[str]:
    """Yield how `value` breaks `schema`."""
    assert schema.keys() <= KNOWN, schema.keys() - KNOWN
    if "$ref" in schema:
        yield from problems(document, resolve(document, schema["$ref"]), value)
        return
    if "anyOf" in schema:
        if all(list(problems(document, part, value)) for part in schema["anyOf"]):
            yield f"{value!r} is none of {schema['anyOf']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is not in {schema['enum']}"
    if "type" in schema:
        good = isinstance(value, TYPES[schema["type"]])
        if not good or (isinstance(value, bool) and schema["type"] != "boolean"):
            yield f"{value!r} is no {schema['type']}"
            return
    yield from _limits(schema, value)
    if isinstance(value, dict):
        yield from (f"no {name}" for name in schema.get("required", ()) if name not in value)
        for name, inner in value.items():
            yield from problems(document, schema.get("properties", {}).get(name, {}), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from problems(document, schema.get("items", {}), inner)


def _limits(schema: dict[str, Any], value: Any) -> Iterator[str]:
    size = len(value) if isinstance(value, str | list) else 0
    length = "Length" if isinstance(value, str) else "Items"
    if size < schema.get(f"min{length}", 0) or size > schema.get(f"max{length}", size):
        yield f"{value!r} is too short or too long"
    if isinstance(value, int | float) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{value!r} is too small or too large"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{value!r} does not match {schema['pattern']}"
    if schema.get("format") == "date-time" and not INSTANT.fullmatch(value):
        yield f"{value!r} is no instant"
