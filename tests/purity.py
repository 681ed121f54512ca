"""What of a program reaches the world: files, environment, clock, chance, sockets, other threads.

A unit is a function, a method, or the rest of a module, which runs when that is imported. A unit is
impure if it names something of the world, or another impure unit: of its own module, of one that it
imports from, or, since nobody knows of what class an object is, any method of such a name.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

BODY = "<module>"
WORLD = {
    "apsw", "asyncio", "datetime", "glob", "io", "locale", "logging", "os", "platform", "secrets",
    "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading",
    "time", "uuid", "uvloop", "zmq", "zoneinfo",
}  # fmt: skip
BUILTINS = {"open", "input", "print"}
METHODS = {
    "read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "cwd", "home", "expanduser",
}  # fmt: skip


class Unit(NamedTuple):
    """A unit by its place."""

    module: str
    name: str


class Names(NamedTuple):
    """What a unit refers to: plain names, names behind a dot, and whether it makes a generator
    that seeds itself."""

    plain: frozenset[str]
    dotted: frozenset[str]
    makes_chance: bool


def imports_of(module: str, tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Yield (name in the module, module it comes from, name there or "") of every import."""
    package = module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            inside = ".".join(filter(None, (package, node.module)))
            source = inside if node.level else node.module or ""
            for alias in node.names:
                yield alias.asname or alias.name, source, alias.name


def neighbours(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules of ours that each one imports, wherever in it, also for types alone."""
    found: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names = found[module] = set()
        for _, source, name in imports_of(module, tree):
            whole = f"{source}.{name}"
            names |= {whole if whole in trees else source} & trees.keys()
    return found


def reached(starts: set[str], graph: Mapping[str, set[str]]) -> set[str]:
    """Return these modules and all that they lead to by imports."""
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


def impure(trees: Mapping[str, ast.Module]) -> set[Unit]:
    """Return every unit of these modules that reaches the world."""
    units = {Unit(module, name): names for module in trees for name, names in _units(trees[module])}
    bound: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for module, tree in trees.items():
        for name, source, there in imports_of(module, tree):
            bound[module][name] = (source, there)
    found: set[Unit] = set()
    while True:
        methods = METHODS | {unit.name for unit in found if not unit.name.startswith(("__", "<"))}
        more = {
            unit
            for unit, names in units.items()
            if unit not in found and _is_impure(unit.module, names, bound, found, methods)
        }
        if not more:
            return found
        found |= more


def _is_impure(
    module: str,
    names: Names,
    bound: Mapping[str, Mapping[str, tuple[str, str]]],
    found: set[Unit],
    methods: set[str],
) -> bool:
    if names.makes_chance or names.dotted & methods or names.plain & BUILTINS:
        return True
    for name in names.plain:
        source, there = bound[module].get(name, (module, name))
        of_the_world = source.partition(".")[0] in WORLD and (source, there) != ("random", "Random")
        if of_the_world or Unit(source, there) in found:
            return True
    return False


def _units(tree: ast.Module) -> Iterator[tuple[str, Names]]:
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    rest: list[ast.AST] = []
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for part in inside:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append(part)
            elif not isinstance(part, ast.Import | ast.ImportFrom):
                rest.append(part)
    by_name: dict[str, list[ast.AST]] = defaultdict(list)
    for function in functions:
        by_name[function.name].append(function)
    for name, nodes in by_name.items():
        yield name, _names(nodes)
    yield BODY, _names(rest)


def _names(nodes: list[ast.AST]) -> Names:
    parts = [part for node in nodes for part in ast.walk(node)]
    made = {
        part.func.id
        for part in parts
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and not part.args
    }
    names = [part for part in parts if isinstance(part, ast.Name)]
    own = {one.id for one in names if isinstance(one.ctx, ast.Store)}
    own |= {part.arg for part in parts if isinstance(part, ast.arg)}
    return Names(
        frozenset({one.id for one in names} - own),
        frozenset(one.attr for one in parts if isinstance(one, ast.Attribute)),
        "Random" in made,
    )
