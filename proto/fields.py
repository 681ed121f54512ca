"""Which fields a message type of the catalogue has, by their paths in JSON."""

from collections.abc import Iterator
from typing import Any

from msgspec import inspect

from . import catalogue


def fields_of(type: str) -> frozenset[str] | None:
    """Return the paths ("contact.caller.phone") of all fields of `type`, through lists as well;
    None for a type that the catalogue does not know. What is below a free object ends with ".*"."""
    try:
        shape = catalogue.entry(type).schema
    except KeyError:
        return None
    return frozenset(_paths(inspect.type_info(shape), "", ()))


def _paths(shape: Any, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    if isinstance(shape, inspect.UnionType):
        for one in shape.types:
            yield from _paths(one, prefix, above)
    elif isinstance(shape, inspect.ListType | inspect.VarTupleType):
        yield from _paths(shape.item_type, prefix, above)
    elif isinstance(shape, inspect.DictType | inspect.AnyType):
        yield f"{prefix}*"
    elif isinstance(shape, inspect.Metadata):
        yield from _paths(shape.type, prefix, above)
    elif isinstance(shape, inspect.StructType) and shape.cls.__name__ not in above:
        for field in shape.fields:
            yield f"{prefix}{field.encode_name}"
            below = (*above, shape.cls.__name__)
            yield from _paths(field.type, f"{prefix}{field.encode_name}.", below)


def has_field(known: frozenset[str], path: str) -> bool:
    """Whether a path is one of `known`, or lies below a free object."""
    if path in known or "*" in known:
        return True
    parts = path.split(".")
    return any(".".join([*parts[:n], "*"]) in known for n in range(1, len(parts)))
