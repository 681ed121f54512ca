"""What an HTTP API takes and answers: an OpenAPI 3.1 document made of the very structs that decode
requests, and a page for people. Both are served by the API itself, from memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.docpage import page

JSON: Final = "application/json"
DOCUMENT: Final = "/openapi.json"
PAGE: Final = "/docs"
PAGE_HEADERS: Final = {
    # One file without a script: nothing else is fetched, whatever stands in a description.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


class Parameter(NamedTuple):
    """One parameter; `where` is "path", "query" or "header", `schema` is JSON Schema."""

    name: str
    where: str
    description: str
    schema: dict[str, Any]
    required: bool = False


class Reply(NamedTuple):
    """One answer: its status, what it means, and the shape and an example of its body."""

    status: int
    description: str
    shape: Any = None
    example: Any = None
    media: str = JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One method of one path; `name` is unique within the API, `example` is a body of `shape`."""

    name: str
    method: str
    path: str
    tag: str
    summary: str
    replies: tuple[Reply, ...]
    shape: Any = None
    example: Any = None
    parameters: tuple[Parameter, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Api:
    """An API as it is told; `token` says what the bearer token of every operation is, "": none.
    `webhooks` are the requests that its clients get; their path is only a name."""

    title: str
    version: str
    description: str
    operations: Sequence[Operation]
    token: str = ""
    webhooks: Sequence[Operation] = ()

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        shapes = self._shapes()
        schemas, components = msgspec.json.schema_components(
            shapes, ref_template="#/components/schemas/{name}"
        )
        schema_of = {id(shape): schema for shape, schema in zip(shapes, schemas, strict=True)}
        for schema in components.values():  # a docstring is indented as its code is
            schema["description"] = " ".join(schema.get("description", "").split())
        paths: dict[str, dict[str, Any]] = {}
        for one in self.operations:
            told = _operation(one, schema_of)
            paths.setdefault(one.path, {})[one.method.lower()] = told
        tags = (one.tag for one in (*self.operations, *self.webhooks))
        document: dict[str, Any] = {
            "openapi": "3.1.0",
            "info": {
                "title": self.title,
                "version": self.version,
                "description": self.description,
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": tag} for tag in dict.fromkeys(tags)],
            "paths": paths,
            "components": {"schemas": components},
        }
        if self.webhooks:
            document["webhooks"] = {
                one.path: {one.method.lower(): _operation(one, schema_of) | {"security": []}}
                for one in self.webhooks
            }
        if self.token:
            scheme = {"type": "http", "scheme": "bearer", "description": self.token}
            document["components"]["securitySchemes"] = {"token": scheme}
            document["security"] = [{"token": []}]
        return document

    def routes(self) -> list[Route]:
        """Return the routes that serve the document and the page."""
        document = self.document()
        as_json = msgspec.json.encode(document)
        as_page = page(document).encode()

        async def serve_document(_: Request) -> Response:
            return Response(as_json, media_type=JSON)

        async def serve_page(_: Request) -> Response:
            return Response(as_page, headers=PAGE_HEADERS, media_type="text/html")

        return [Route(DOCUMENT, serve_document), Route(PAGE, serve_page)]

    def _shapes(self) -> list[Any]:
        """Return every shape once, in order; they need not be hashable (`list[X]` may not be)."""
        found: dict[int, Any] = {}
        for one in (*self.operations, *self.webhooks):
            for shape in (one.shape, *(reply.shape for reply in one.replies)):
                if shape is not None:
                    found.setdefault(id(shape), shape)
        return list(found.values())


def _operation(one: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": one.name, "tags": [one.tag], "summary": one.summary}
    if one.description:
        told["description"] = one.description
    if one.parameters:
        told["parameters"] = [_parameter(parameter) for parameter in one.parameters]
    if one.shape is not None:
        content = _content(JSON, schema_of[id(one.shape)], one.example)
        told["requestBody"] = {"required": True, "content": content}
    told["responses"] = {str(reply.status): _reply(reply, schema_of) for reply in one.replies}
    return told


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required or parameter.where == "path",
        "schema": parameter.schema,
    }


def _reply(reply: Reply, schema_of: dict[int, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": reply.description}
    if reply.headers:
        told["headers"] = {name: {"schema": {"type": "string"}} for name in reply.headers}
    if reply.shape is not None:
        told["content"] = _content(reply.media, schema_of[id(reply.shape)], reply.example)
    return told


def _content(media: str, schema: Any, example: Any) -> dict[str, Any]:
    told = {"schema": schema}
    if example is not None:
        told["example"] = msgspec.to_builtins(example)
    return {media: told}
