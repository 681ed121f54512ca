"""XML from outside, parsed within limits, and the structs of a contract as elements and back.

Nothing is fetched, no entity is expanded, a DOCTYPE is refused, and so is what is too deep or has
too many elements. What is wrong is a BadInput with path and rule, never with the value. Names are
matched without their namespace: partners differ in what they qualify, not in what they mean.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final, TypeVar

import msgspec
from lxml import etree
from msgspec import inspect

from connectors.runtime.door.body import BadInput, bad_input
from connectors.runtime.markup.xsd import lexical

__all__ = ["Element", "local", "measure", "parse", "plain", "read", "render", "typed", "write"]

Element = etree._Element
DEPTH_MAX: Final = 64
ELEMENTS_MAX: Final = 20_000
NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"
# What XML Schema calls a white space; str.strip() takes many more.
BLANK: Final = " \t\r\n"

Shape = TypeVar("Shape", bound=msgspec.Struct)


def parse(body: bytes, elements_max: int = ELEMENTS_MAX) -> Element:
    """Return the root of `body`. Raises BadInput."""
    # One parser for one document: libxml2 keeps the names of all that a parser ever saw.
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise BadInput("", "is not well-formed XML") from None
    if root.getroottree().docinfo.doctype:
        raise BadInput("", "has a DOCTYPE, which is not allowed")
    measure(root, elements_max)
    return root


def measure(root: Element, elements_max: int = ELEMENTS_MAX) -> None:
    """Raise BadInput for what is too deep, has too many elements, or a name that cannot be asked
    for: the parser lets pass prefixes that are not declared, and braces in a namespace."""
    level: list[Element] = [root]
    count = depth = 0
    while level:
        count += len(level)
        depth += 1
        if depth > DEPTH_MAX:
            raise BadInput("", f"is nested deeper than {DEPTH_MAX} elements")
        if count > elements_max:
            raise BadInput("", f"has more than {elements_max} elements")
        try:
            for element in level:
                local(element)
        except ValueError:
            raise BadInput("", "is not well-formed XML") from None
        level = [child for element in level for child in element]


def render(element: Element) -> bytes:
    """Return `element` as a document in UTF-8."""
    return etree.tostring(element, xml_declaration=True, encoding="UTF-8")


def local(element: Element) -> str:
    """Return the name of `element` without its namespace."""
    return etree.QName(element).localname


# -- structs ------------------------------------------------------------------------------------


def read(element: Element, shape: type[Shape]) -> Shape:
    """Return the children of `element` as the fields of `shape`. Raises BadInput.

    An element that is empty where no text is expected, or marked nil, counts as absent, and so does
    an empty one in a list of structures: PHP's SoapServer writes an empty list so. Elements that
    `shape` does not know are left out.
    """
    return typed(plain(element, shape), shape)


def plain(element: Element, shape: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the children of `element` as JSON would have them, also those that `shape` does not
    know. Raises BadInput."""
    found: dict[str, Any] = _plain(element, _kind(shape))
    return found


def typed(value: dict[str, Any], shape: type[Shape]) -> Shape:
    """Return what `plain` made as `shape`. Raises BadInput."""
    try:
        return msgspec.convert(value, shape, strict=False)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None


@cache
def _kind(shape: type[msgspec.Struct]) -> inspect.Type:
    """Return what a shape consists of: to look it up anew took most of the time of a message."""
    return inspect.type_info(shape)


def _plain(element: Element, kind: inspect.Type) -> Any:
    kind = _only(kind)
    match kind:
        case inspect.StructType(fields=fields):
            return _fields(element, fields)
        case inspect.DictType():
            return _free(element)
        case inspect.StrType():
            return element.text or ""
        case inspect.BytesType():  # base64, often in lines
            return "".join((element.text or "").split())
        case _:
            return lexical((element.text or "").strip(BLANK), kind)


def _fields(element: Element, fields: Iterable[inspect.Field]) -> dict[str, Any]:
    known = {field.encode_name: _only(field.type) for field in fields}
    result: dict[str, Any] = {}
    for child in element:
        name = local(child)
        kind = known.get(name)
        if child.get(NIL) in ("true", "1"):
            continue
        if kind is None:
            _collect(result, name, _free(child))
        elif isinstance(kind, inspect.ListType):
            items = result.setdefault(name, [])
            if not _is_empty_part(child, kind.item_type):
                items.append(_plain(child, kind.item_type))
        elif name in result:
            raise BadInput(name, "is given more than once")
        elif _says_something(child, kind):
            result[name] = _plain(child, kind)
    return result


def _is_empty_part(element: Element, kind: inspect.Type) -> bool:
    if not isinstance(_only(kind), inspect.StructType) or len(element):
        return False
    return not (element.text or "").strip(BLANK)


def _says_something(child: Element, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.StrType | inspect.StructType | inspect.DictType):
        return True
    return bool((child.text or "").strip(BLANK))


def _only(kind: inspect.Type) -> inspect.Type:
    """Return the kind itself of what may also be absent."""
    if isinstance(kind, inspect.Metadata):
        return _only(kind.type)
    if isinstance(kind, inspect.UnionType):
        rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _only(rest[0])
    return kind


def _free(element: Element) -> Any:
    """Return an element of no known shape as nested dicts; repeated names become lists."""
    if not len(element):
        return element.text or ""
    result: dict[str, Any] = {}
    for child in element:
        _collect(result, local(child), _free(child))
    return result


def _collect(result: dict[str, Any], name: str, value: Any) -> None:
    """Put in a value; a second one of the same name makes a list."""
    if name not in result:
        result[name] = value
    elif isinstance(result[name], list):
        result[name].append(value)
    else:
        result[name] = [result[name], value]


def write(parent: Element, value: msgspec.Struct | dict[str, Any], namespace: str | None) -> None:
    """Append the fields of `value` to `parent`, in their order, in `namespace` if it is given.

    None is left out. Raises BadInput for a character that XML cannot hold.
    """
    _write_fields(parent, msgspec.to_builtins(value), namespace, "")


def _write_fields(parent: Element, fields: dict[str, Any], ns: str | None, at: str) -> None:
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if one is None:
                continue
            child = etree.SubElement(parent, f"{{{ns}}}{name}" if ns else name)
            path = f"{at}.{name}" if at else name
            if isinstance(one, dict):
                _write_fields(child, one, ns, path)
                continue
            try:
                child.text = _text(one)
            except ValueError:
                raise BadInput(path, "has a character that XML cannot hold") from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
