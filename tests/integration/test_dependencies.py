"""What bulkbind is installed with is what it imports, pinned, and known by its public names."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import pkgutil
import re
import sys
from importlib.metadata import packages_distributions

import aiohttp
from aiohttp.client_proto import ResponseHandler
from packaging.requirements import Requirement

import bulkbind
from bulkbind.koodrive import connections
from tests.support.constraints import PINS, inputs
from tests.support.paths import ROOT
from tests.support.sbom import sbom
from tests.support.versions import lowest, requirements

SOURCES = {path: path.read_text("utf-8") for path in sorted((ROOT / "bulkbind").rglob("*.py"))}


def canonical(name: str) -> str:
    """Return a project's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Return the packages that the sources import, those named for types alone included."""
    found = set()
    for text in SOURCES.values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").partition(".")[0])
        found |= set(re.findall(r'import_module\("(\w+)"\)', text))
    return found - set(sys.stdlib_module_names) - {"bulkbind", "_typeshed"}


def test_whatever_is_imported_is_declared():
    """Nothing comes by way of another package, and nothing is declared for no use."""
    owners = packages_distributions()
    names = {canonical(owner) for each in imported() for owner in owners.get(each, [each])}

    assert names == {canonical(each.name) for each in requirements()}


def test_each_requirement_has_a_floor():
    """`python -m tests.support.versions lowest` installs the floors."""
    for each in requirements():
        assert re.fullmatch(r"[0-9.]+", lowest(each)), each


# --- private names ------------------------------------------------------------------------------


def private_overrides():
    """Yield the modules and names with which our classes replace private ones of libraries'."""
    ours = [each.name for each in pkgutil.walk_packages(bulkbind.__path__, "bulkbind.")]
    for name in ours:
        if name != "bulkbind.__main__":
            module = importlib.import_module(name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                if kind.__module__ == name:
                    yield from ((name, each) for each in _overridden(kind))


def _overridden(kind):
    theirs = [
        base
        for base in kind.__mro__
        if base.__module__.partition(".")[0] not in {*sys.stdlib_module_names, "bulkbind"}
    ]
    own = {name for name, value in vars(kind).items() if inspect.isfunction(value)}
    private = {name for name in own if name.startswith("_") and not name.endswith("__")}
    return {name for name in private if any(name in vars(base) for base in theirs)}


def test_private_names_of_libraries_are_used_in_one_module():
    """There, aiohttp has no public way; its version has an upper bound for it."""
    reached = {
        path.name for path, text in SOURCES.items() if "# noqa: SLF001" in text
    } - {"facts.py", "process.py"}  # into a class of its own, and Python's library  # fmt: skip
    [bound] = [each.specifier for each in requirements() if each.name == "aiohttp"]

    assert reached == {"connections.py"}
    assert set(private_overrides()) == {
        ("bulkbind.koodrive.connections", "_get"),
        ("bulkbind.koodrive.connections", "_release"),
    }  # fmt: skip
    assert any(each.operator == "<" for each in bound)


async def test_private_names_of_aiohttp_are_there():
    """What `QuietConnector` builds on; `test_connector.py` shows that it is still called."""
    connector = aiohttp.TCPConnector()
    session = aiohttp.ClientSession(connector=connector)
    protocol = ResponseHandler(asyncio.get_running_loop())
    try:
        assert session._retry_connection is True
        assert connector._conns == {}
        assert connector._factory.func is ResponseHandler
        assert not protocol._buffer
        assert not protocol._tail
    finally:
        await session.close()
    for name in ("_get", "_release"):
        theirs = inspect.signature(getattr(aiohttp.TCPConnector, name))
        own = inspect.signature(getattr(connections.QuietConnector, name))
        assert list(theirs.parameters) == list(own.parameters)


# --- pins ---------------------------------------------------------------------------------------


def pinned() -> dict[str, str]:
    """Return the versions in the constraints file by name."""
    return dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", PINS.read_text("utf-8"), re.MULTILINE))


def test_constraints_pin_everything_with_hashes():
    """Each requirement is met by a pin, each pin has hashes, and no index is named."""
    text = PINS.read_text("utf-8")
    pins = {canonical(name): version for name, version in pinned().items()}

    for each in map(Requirement, inputs()):
        assert each.specifier.contains(pins[canonical(each.name)]), each
    blocks = re.split(r"\n(?=\w)", text[text.index("\n\n") :].strip())
    assert all("--hash=sha256:" in block for block in blocks if not block.startswith("#"))
    assert not re.search(r"https?:|file:|--index|--find-links|/opt/", text)


def test_the_sbom_names_what_is_installed():
    """CycloneDX: each package once, with version, licence and address, and who needs whom."""
    bom = json.loads(json.dumps(sbom()))
    refs = [each["bom-ref"] for each in bom["components"]]
    names = {each["name"] for each in bom["components"]}

    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "bulkbind"
    assert len(refs) == len(set(refs))
    assert {"aiohttp", "yarl", "pydantic-core", "structlog"} <= names
    assert not names & {"pytest", "ruff", "mypy"}
    assert all(
        each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}" for each in bom["components"]
    )
    known = {*refs, bom["metadata"]["component"]["bom-ref"]}
    assert {each["ref"] for each in bom["dependencies"]} == known
    assert all(set(each["dependsOn"]) <= known for each in bom["dependencies"])
