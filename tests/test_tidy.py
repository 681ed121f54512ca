"""The house rules that a program can check: layout, imports, names, sizes, forbidden words."""

import ast
import re
import string
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.purity import BODY, WORLD, Unit, impure, neighbours, reached

ROOT = Path(__file__).parents[1]
PACKAGES = ("proto", "router", "connectors")
TOP_LEVEL = {
    ".ci",
    ".editorconfig",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "NOTICE",
    "SECURITY.md",
    "Makefile",
    "README.md",
    "config",
    "connectors",
    "docs",
    "findings",
    "proto",
    "pyproject.toml",
    "requirements-audit.lock",
    "requirements-dev.lock",
    "requirements.lock",
    "router",
    "systemd",
    "tests",
}
NO_NOUNS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
# What each package may import besides the standard library and its allowed neighbours.
THIRD_PARTY = {
    "proto": {"msgspec", "zmq"},
    "router": {
        "apsw",
        "click",
        "msgspec",
        "prometheus_client",
        "starlette",
        "uvicorn",
        "uvloop",
        "zmq",
    },
    "connectors": {
        "apsw",
        "click",
        "cryptography",
        "h11",
        "httpx",
        "lxml",
        "msgspec",
        "psycopg",
        "pymemcache",
        "starlette",
        "uvicorn",
        "uvloop",
        "zeep",
    },
}
NEIGHBOURS = {
    "proto": {"proto"},
    "router": {"router", "proto"},
    "connectors": {"connectors", "proto"},
}
# What each folder of connectors/ may import besides itself.
LAYERS = {
    "runtime": (),
    "services": ("runtime",),
    "partners": ("runtime", "services", "billing"),
    "billing": ("runtime", "services", "partners.tfoms"),
    "person": ("runtime", "services"),
    "simulators": ("runtime", "services", "partners", "billing", "plugins"),
}
# The core is fed time and chance: it may not take them itself, nor touch the world. What it has in
# common with clients lies in modules where somebody makes messages, now and with a new number.
NEVER_CALLED_BY_THE_CORE = {
    Unit("proto.identifiers", BODY),
    Unit("proto.identifiers", "new_id"),
    Unit("proto.message", "new"),
    Unit("proto.message", "now_ms"),
}
CITED = re.compile(r"domain\.md\s+([0-9]+(?:\.[0-9]+)?)")
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_IMPORTS = {"pickle", "marshal", "shelve", "xml"}
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 550


def modules() -> list[Path]:
    """Return every module that is shipped."""
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def named(paths: list[Path]) -> list[object]:
    """Return the paths as pytest parameters that read well."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Return the top-level names of everything a module imports, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # proto is shipped under another name, too: there it may not name itself.
            inside = path.parent == ROOT / "proto"
            assert node.level == 0 or (node.level == 1 and inside), f"{path}: a relative import"
            found.add("proto" if node.level else (node.module or "").partition(".")[0])
            assert not inside or node.module is None or not re.match(r"proto\b", node.module), (
                f"{path}: imports proto by its name, not relatively"
            )
    return found


def trees_of_all() -> dict[str, ast.Module]:
    """Return the syntax trees of all that is shipped, by the names of the modules."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): tree_of(
            path
        )
        for path in modules()
    }


def modules_named_by(path: Path) -> set[str]:
    """Return the whole names of the modules that a module imports from."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def patterns_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every regular expression, and of every part of one, in a module."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        compiled = ast.unparse(node.func) in ("re.compile", "exactly")
        given = node.args[:1] if compiled else []
        given += [one.value for one in node.keywords if one.arg == "pattern"]
        for part in (part for one in given for part in ast.walk(one)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield node.lineno, part.value
            elif isinstance(part, ast.Constant) and isinstance(part.value, bytes):
                yield node.lineno, part.value.decode()


def ignored() -> set[str]:
    """Return the names that .gitignore keeps out of the repository."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    return {line.strip("/") for line in lines} | {".git"}


class TestLayout:
    def test_top_level_is_as_the_readme_says(self) -> None:
        assert {path.name for path in ROOT.iterdir()} - ignored() == TOP_LEVEL

    @pytest.mark.parametrize("path", named(modules()))
    def test_a_module_is_named_by_what_it_owns(self, path: Path) -> None:
        assert not {path.stem, path.parent.name} & NO_NOUNS

    @pytest.mark.parametrize("path", named(modules()))
    def test_a_module_says_what_it_owns(self, path: Path) -> None:
        assert ast.get_docstring(tree_of(path)), "no docstring"

    @pytest.mark.parametrize("path", named(modules()))
    def test_sizes(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name

    def test_public_functions_say_what_they_do(self) -> None:
        silent = [
            f"{path.relative_to(ROOT)}: {node.name}"
            for path in modules()
            for node in tree_of(path).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not any(ast.unparse(mark) == "overload" for mark in node.decorator_list)
            and not ast.get_docstring(node)
        ]
        assert silent == []


class TestImports:
    @pytest.mark.parametrize("path", named(modules()))
    def test_one_way_and_listed(self, path: Path) -> None:
        package = path.relative_to(ROOT).parts[0]
        foreign = imported(path) - set(sys.stdlib_module_names) - NEIGHBOURS[package]
        assert foreign <= THIRD_PARTY[package]

    def test_what_is_imported_is_declared(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        declared = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
        used = set().union(*(imported(path) for path in modules()))
        third_party = used - set(sys.stdlib_module_names) - set(PACKAGES)
        as_declared = {"zmq": "pyzmq", "prometheus_client": "prometheus-client"}
        # supervisor is a program that is run, sniffio what a library of ours looks for.
        unseen = {"supervisor", "sniffio"}
        wanted = {as_declared.get(name, name) for name in third_party} | unseen
        assert wanted == declared

    def test_the_core_is_pure(self) -> None:
        """Also behind what it imports: a text in the language of the environment was one call away,
        and nothing that the core imported itself had an environment."""
        for path in sorted((ROOT / "router" / "core").glob("*.py")):
            assert not imported(path) & WORLD, path.name
        trees = trees_of_all()
        core = {module for module in trees if module.startswith("router.core")}
        shared = reached(core, neighbours(trees))
        assert impure({module: trees[module] for module in shared}) == NEVER_CALLED_BY_THE_CORE

    def test_what_reaches_the_world_is_found(self) -> None:
        sources = {
            "a.core": "from b import words\nclass Core:\n def end(self): return words('x')",
            "b": "import c\ndef words(key): return c.text(key)\ndef plain(open): return open",
            "c": "import os\ndef text(key): return os.environ[key]",
            "d": "from random import Random\ndef give(random: Random): return random\n"
            "def draw(): return Random()",
            "e": "class Clock:\n def at(self): return self.path.read_text()\n"
            "def late(clock): return clock.at()",
        }
        trees = {module: ast.parse(source) for module, source in sources.items()}
        assert reached({"a.core"}, neighbours(trees)) == {"a.core", "b", "c"}
        assert impure(trees) == {
            Unit("a.core", "end"), Unit("b", "words"), Unit("c", "text"), Unit("d", "draw"),
            Unit("e", "at"), Unit("e", "late"),
        }  # fmt: skip

    def test_no_module_leads_back_to_itself(self) -> None:
        """An import for types alone counts: who cannot say what he needs without naming who needs
        him is one thing with him. Names go down, objects go up."""
        try:
            TopologicalSorter(neighbours(trees_of_all())).prepare()
        except CycleError as error:
            pytest.fail(" -> ".join(error.args[1]))

    def test_the_shell_sets_nothing_of_the_core(self) -> None:
        """What the core is told it is told by a call, which says what else follows from it."""
        inside = re.compile(r"(?:.*\.)?_?core\.(?!out\.).+")
        shell = sorted((ROOT / "router" / "shell").glob("*.py"))
        told = [
            f"{path.name}, line {node.lineno}: {ast.unparse(node)}"
            for path in shell
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Attribute | ast.Subscript)
            and isinstance(node.ctx, ast.Store | ast.Del)
            and inside.fullmatch(ast.unparse(node))
        ]
        assert shell
        assert told == []

    def test_the_core_takes_no_chance_of_its_own(self) -> None:
        core = sorted((ROOT / "router" / "core").glob("*.py"))
        assert core
        # A generator that it is given is chance fed from outside; the module's own is not.
        chance = {
            f"{path.name}: {alias.name}"
            for path in core
            for node in ast.walk(tree_of(path))
            if (isinstance(node, ast.ImportFrom) and node.module == "random")
            or (isinstance(node, ast.Import) and node.names[0].name == "random")
            for alias in node.names
            if alias.name != "Random"
        }
        assert chance == set()

    def test_one_module_knows_the_http_client(self) -> None:
        knowing = [str(path.relative_to(ROOT)) for path in modules() if "httpx" in imported(path)]
        assert knowing == ["connectors/runtime/partner/http.py"]

    def test_one_module_knows_the_cache_client(self) -> None:
        knowing = [path for path in modules() if "pymemcache" in imported(path)]
        assert knowing == [ROOT / "connectors/services/lookup/memcached.py"]

    def test_one_connector_module_knows_the_postgresql_client(self) -> None:
        connectors = [path for path in modules() if path.is_relative_to(ROOT / "connectors")]
        knowing = [path for path in connectors if "psycopg" in imported(path)]
        assert knowing == [ROOT / "connectors/partners/smpsql/database.py"]

    @pytest.mark.parametrize("layer", LAYERS)
    def test_connectors_are_built_in_layers(self, layer: str) -> None:
        """The product never needs a simulator, nor one partner's connector another's."""
        allowed = LAYERS[layer]
        for path in sorted((ROOT / "connectors" / layer).rglob("*.py")):
            own = ".".join(path.relative_to(ROOT).parts[: 3 if layer == "partners" else 2])
            wanted = (own, *(f"connectors.{one}" for one in allowed))
            for name in modules_named_by(path):
                if name.startswith("connectors."):
                    fits = any(name == one or name.startswith(f"{one}.") for one in wanted)
                    assert fits, f"{path.relative_to(ROOT)} imports {name}"


class TestCode:
    @pytest.mark.parametrize("path", named(modules()))
    def test_nothing_forbidden(self, path: Path) -> None:
        assert not imported(path) & FORBIDDEN_IMPORTS
        for node in ast.walk(tree_of(path)):
            # An assert vanishes under -O: what must hold is checked and named.
            assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert"
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else ""
                assert called not in FORBIDDEN_CALLS, f"line {node.lineno}: {called}"
                shell = [one for one in node.keywords if one.arg == "shell"]
                assert not shell, f"line {node.lineno}: a shell"

    def test_no_test_is_switched_off(self) -> None:
        off = re.compile(r"pytest\.(?:mark\.)?(?:skip|xfail|importorskip)")
        tests = sorted((ROOT / "tests").rglob("*.py"))
        found = [path.name for path in tests if path != Path(__file__) and off.search(read(path))]
        assert found == []

    @pytest.mark.parametrize("path", named(modules()))
    def test_a_pattern_means_all_of_a_text_and_plain_digits(self, path: Path) -> None:
        # `$` lets a last line feed through, "\\d" the digits of every script: proto/pattern.py.
        if path == ROOT / "proto" / "pattern.py":
            return
        for line, pattern in patterns_of(path):
            outside = re.sub(r"\[(?:\\.|[^]\\])*\]", "", pattern)  # of a class of characters
            assert not re.search(r"(?<!\\)\$", outside), f"line {line}: {pattern}"
            assert "\\d" not in pattern, f"line {line}: {pattern}"


class TestCitations:
    def test_what_is_cited_of_the_field_is_there(self) -> None:
        """Each `docs/domain.md 4.3` names a section, with or without a second level."""
        page = read(ROOT / "docs" / "domain.md")
        sections = set(re.findall(r"^##+ ([0-9]+(?:\.[0-9]+)?)\.? ", page, re.MULTILINE))
        cited = {
            (str(path.relative_to(ROOT)), number)
            for folder in (*PACKAGES, "config", "tests", "docs")
            for path in sorted((ROOT / folder).rglob("*.*"))
            if path.suffix in (".py", ".toml", ".md") and path.name != "domain.md"
            for number in CITED.findall(read(path))
        }
        assert len(cited) > 10
        assert {one for one in cited if one[1] not in sections} == set()

    @pytest.mark.parametrize("page", ["where.md", "architecture.md", "neighbours.md"])
    def test_files_named_on_a_page_are_there(self, page: str) -> None:
        named_files = re.findall(
            r"`((?:config|connectors|findings|proto|router|tests)/[\w./-]+)`",
            read(ROOT / "docs" / page),
        )
        assert len(named_files) > 5
        gone = {name for name in named_files if not (ROOT / name).exists()}
        assert {name for name in gone if "NAME" not in name} == set()

    def test_pages_link_to_what_is_there(self) -> None:
        pages = [*ROOT.glob("*.md"), *(path for path in ROOT.glob("*/**/*.md") if own(path))]
        dead = {
            f"{page.relative_to(ROOT)}: {link}"
            for page in pages
            for link in re.findall(
                r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"`[^`\n]*`", "", read(page))
            )
            if not (page.parent / link).exists()
        }
        assert dead == set()


class TestTexts:
    def test_both_languages_say_the_same_things(self) -> None:
        russian, english = (flat(language) for language in ("ru", "en"))
        assert russian.keys() == english.keys()
        differing = {key for key in russian if fields_of(russian[key]) != fields_of(english[key])}
        assert differing == set()

    def test_every_text_named_in_the_code_exists(self) -> None:
        known = flat("ru").keys()
        named_in_code = {
            node.args[0].value
            for path in modules()
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "text"
            and isinstance(node.args[0], ast.Constant)
        }
        assert len(named_in_code) > 50
        assert named_in_code - known == set()

    def test_every_note_has_a_text_with_its_fields(self) -> None:
        texts = flat("en")
        made = {
            (str(node.args[0].value), frozenset(str(one.arg) for one in node.keywords))
            for path in modules()
            if "proto.note" in modules_named_by(path)
            for node in calls_of(path, "coded")
            if isinstance(node.args[0], ast.Constant)
        }
        assert len(made) > 50
        wrong = {code for code, fields in made if fields_of(texts[f"note.{code}"]) != fields}
        assert wrong == set()

    @pytest.mark.parametrize("path", named(modules()))
    def test_nothing_is_settled_with_words_of_one_language(self, path: Path) -> None:
        for kind in ("Retry", "Reject", "Untouched", "BadReply", "ack", "retry", "reject"):
            for node in calls_of(path, kind):
                for part in ast.walk(node):
                    called = part.func if isinstance(part, ast.Call) else None
                    is_text = isinstance(called, ast.Name) and called.id == "text"
                    assert not is_text, f"line {node.lineno}: a note is made by coded()"


def calls_of(path: Path, name: str) -> Iterator[ast.Call]:
    """Yield what calls a function or method of this name in a module."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = node.func
            if name == (called.attr if isinstance(called, ast.Attribute) else "") or (
                isinstance(called, ast.Name) and called.id == name
            ):
                yield node


def own(path: Path) -> bool:
    """Whether a file is the repository's, not a tool's."""
    parts = path.relative_to(ROOT).parts
    return parts[0] in TOP_LEVEL and not set(parts) & ignored()


def flat(language: str) -> dict[str, str]:
    """Return the texts of one language by dotted key."""
    found: dict[str, str] = {}
    for file in (ROOT / "proto" / "texts").glob(f"**/{language}.toml"):
        texts = dict(_flat("", tomllib.loads(read(file))))
        assert not texts.keys() & found.keys(), f"{file}: a text that another file has, too"
        found |= texts
    return found


def _flat(prefix: str, table: dict[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield prefix + key, str(value)


def fields_of(text: str) -> set[str]:
    """Return the {fields} of a text."""
    return {field for _, field, _, _ in string.Formatter().parse(text) if field}


def read(path: Path) -> str:
    """Return a file's text."""
    return path.read_text(encoding="utf-8")
