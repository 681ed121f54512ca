"""What is said once in a SOAP body and referred to elsewhere (SOAP 1.1, 5.4: `href="#id"`), put
where it is meant: some servers write an object that comes twice so, also in document/literal."""

from copy import deepcopy
from typing import Final

from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import xml

ENCODED: Final = "{http://www.w3.org/2003/05/soap-encoding}"
IDS: Final = ("id", f"{ENCODED}id")
REFERENCES: Final = ("href", f"{ENCODED}ref")
FOLLOWED_MAX: Final = 1000


def follow(body: xml.Element) -> None:
    """Fill every reference with a copy of what it means, and take out what only stood there to be
    referred to. Raises BadInput for one that means nothing, or itself, and for a body that would
    grow beyond the limits of `xml.parse`."""
    if not any(_reference(one) for one in body.iter()):
        return
    known = {id: one for one in body.iter() if (id := _first(one, IDS))}
    waiting = [one for one in body.iter() if _reference(one)]
    left = xml.ELEMENTS_MAX
    for count, one in enumerate(waiting):
        meant = known.get(_reference(one).removeprefix("#"))
        name = xml.local(one)
        if meant is None or _reference(meant):
            raise BadInput(name, "refers to nothing")
        if meant is one or any(parent is meant for parent in one.iterancestors()):
            raise BadInput(name, "refers to itself")
        left -= sum(1 for _ in meant.iter())
        if left < 0 or count >= FOLLOWED_MAX:
            raise BadInput(name, "refers to too much")
        for attribute in (*REFERENCES, *IDS):
            one.attrib.pop(attribute, None)
        copies = [deepcopy(child) for child in meant]
        one.text = meant.text
        one.extend(copies)
        if xml.NIL in meant.attrib:
            one.set(xml.NIL, meant.attrib[xml.NIL])
        waiting += [inner for copy in copies for inner in copy.iter() if _reference(inner)]
    for child in list(body)[1:]:
        if _first(child, IDS):
            body.remove(child)
    xml.measure(body)


def _reference(element: xml.Element) -> str:
    found = _first(element, REFERENCES)
    return found if found.startswith("#") else ""


def _first(element: xml.Element, names: tuple[str, ...]) -> str:
    return next((str(element.attrib[name]) for name in names if name in element.attrib), "")
