"""An OpenAPI document as one page for people: no script, no font, nothing from elsewhere. Pure."""

import json
from collections.abc import Iterable
from html import escape
from typing import Any, Final

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem;
       color: #1c2024; background: #fff; }
h2 { border-bottom: 1px solid #d5dae0; margin-top: 2.5rem; }
section { margin: 1.6rem 0; }
h3 { font: 600 1rem ui-monospace, monospace; background: #f1f4f7; padding: .5rem .7rem; }
h3 b { display: inline-block; min-width: 3.6rem; color: #0b57a4; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border: 1px solid #d5dae0; }
pre { background: #f7f9fb; padding: .7rem; overflow-x: auto; font-size: 13px; }
code { font-family: ui-monospace, monospace; font-size: 13px; }
nav a { display: block; } a { color: #0b57a4; }
@media (prefers-color-scheme: dark) {
  body { color: #dfe4e9; background: #14181c; } h3, pre { background: #1f252b; }
  a, h3 b { color: #7db7f0; } th, td, h2 { border-color: #39424b; }
}
"""
_REF: Final = "#/components/schemas/"


def page(document: dict[str, Any]) -> str:
    """Return the page of a document that `openapi.Api` made."""
    info = document["info"]
    operations = [
        (method, path, told)
        for path, methods in (document["paths"] | document.get("webhooks", {})).items()
        for method, told in methods.items()
    ]
    title = escape(f"{info['title']} {info['version']}")
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width">',
        f"<style>{STYLE}</style><h1>{title}</h1>{_paragraphs(info['description'])}",
        '<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>',
        *(_scheme(scheme) for scheme in document["components"].get("securitySchemes", {}).values()),
        "<nav>",
        *(
            f'<a href="#{escape(told["operationId"])}"><code>{method.upper()} {escape(path)}</code>'
            f" {escape(told['summary'])}</a>"
            for method, path, told in operations
        ),
        "</nav>",
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>")
        parts += [_operation(*one) for one in operations if one[2]["tags"] == [tag["name"]]]
    parts.append("<h2>Shapes</h2>")
    shapes = document["components"]["schemas"]
    parts += [_shape(name, schema) for name, schema in sorted(shapes.items())]
    return "\n".join(parts) + "</html>"


def _scheme(scheme: dict[str, Any]) -> str:
    return f"<p><b>Authorization: Bearer</b>. {escape(scheme['description'])}</p>"


def _operation(method: str, path: str, told: dict[str, Any]) -> str:
    parts = [
        f'<section id="{escape(told["operationId"])}">',
        f"<h3><b>{method.upper()}</b> {escape(path)}</h3><p>{escape(told['summary'])}.</p>",
        _paragraphs(told.get("description", "")),
    ]
    if parameters := told.get("parameters"):
        cells = [
            (
                f"<code>{escape(one['name'])}</code>",
                escape(one["in"]) + (", required" if one["required"] else ""),
                _kind(one["schema"]),
                escape(one["description"]),
            )
            for one in parameters
        ]
        parts.append(_table(("parameter", "where", "type", "meaning"), cells))
    if body := told.get("requestBody"):
        parts += ["<p>Request: ", *_contents(body["content"])]
    rows = [
        (status, escape(reply["description"]), "".join(_contents(reply.get("content", {}))))
        for status, reply in told["responses"].items()
    ]
    parts.append(_table(("answer", "meaning", "body"), rows))
    return "".join(parts) + "</section>"


def _contents(content: dict[str, Any]) -> Iterable[str]:
    for media, told in content.items():
        yield f"{_kind(told['schema'])} <code>{escape(media)}</code>"
        if "example" in told:
            shown = json.dumps(told["example"], ensure_ascii=False, indent=2)
            yield f"<pre>{escape(shown)}</pre>"


def _shape(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            f"<code>{escape(field)}</code>" + (" *" if field in required else ""),
            _kind(told),
            escape(_limits(told)),
        )
        for field, told in schema.get("properties", {}).items()
    ]
    told = _table(("field, * required", "type", "limits"), rows) if rows else _kind(schema)
    return (
        f'<section id="shape-{escape(name)}"><h3>{escape(name)}</h3>'
        f"{_paragraphs(schema.get('description', ''))}{told}</section>"
    )


def _kind(schema: dict[str, Any]) -> str:
    """Return a type in words, with links to the shapes."""
    if reference := schema.get("$ref", ""):
        name = escape(reference.removeprefix(_REF))
        return f'<a href="#shape-{name}">{name}</a>'
    if parts := schema.get("anyOf", ()):
        return " or ".join(_kind(part) for part in parts)
    if "enum" in schema:
        return " · ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type") or "anything"))


def _limits(schema: dict[str, Any]) -> str:
    shown = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "pattern")
    told = [f"{key} {schema[key]}" for key in shown if key in schema]
    told += [limits for part in schema.get("anyOf", ()) if (limits := _limits(part))]
    return ", ".join(told)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the cells are HTML already."""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _paragraphs(words: str) -> str:
    return "".join(f"<p>{escape(one)}</p>" for one in words.split("\n\n") if one)
