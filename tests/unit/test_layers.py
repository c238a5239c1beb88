"""Imports go only downward, openssh/ is pure standard library, and importing holdfast is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

SOURCE = Path(holdfast.__file__).parent

#: From the bottom up; a module may import what stands in a line above its own, and nothing else of
#: holdfast. "package.*" is every module of it, one layer (openssh has an order of its own, below).
LAYERS = [
    ["openssh.*"],
    ["errors"],
    ["settings", "session_gate", "ssh_config_file", "marker"],
    ["hosts", "ssh_include"],
    ["pipes", "exchange"],
    ["remote_process", "link"],
    ["aside"],
    ["remote_kill", "ready"],
    ["ssh_process", "mux_process"],
    ["sessions"],
    ["shell", "transfer", "forwards", "terminal"],
    ["connection"],
    ["connection_cache"],
    ["__init__"],
    ["testing"],
    ["pytest_plugin", "demo"],
    ["cli.*"],
    ["__main__"],
]

OPENSSH_LAYERS = [
    ["__init__", "errors"],
    ["destination", "options", "quoting", "mux_protocol", "forwarding", "file_lock", "processes"],
    ["version", "command", "rsync", "mux_client", "listening", "login_ledger", "diagnosis"],
    ["config", "mux_session"],
    ["control_path"],
    ["records"],
    ["sweep"],
    ["control_master"],
]


def _modules(root: Path) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(root.rglob("*.py"))
    }


def _layer(name: str, layers: list[list[str]]) -> int:
    package = name.partition(".")[0] + ".*"
    for number, layer in enumerate(layers):
        if name in layer or (package in layer and name != package):
            return number
    pytest.fail(f"the layer of {name} is not defined; add it to the list in {__file__}")


def _imports(path: Path, package: list[str]) -> set[str]:
    """Absolute names of all that a file imports when it runs, wherever in the file."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    only_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names}
    return found


def _resolve(name: str, modules: dict[str, Path], prefix: str) -> str:
    """The module of ours that an imported name belongs to."""
    parts = name[len(prefix) :].lstrip(".").split(".") if name != prefix else [""]
    while parts and parts != [""]:
        for candidate in (".".join(parts), ".".join([*parts, "__init__"])):
            if candidate in modules:
                return candidate
        parts.pop()
    return "__init__"


def _upward(root: Path, prefix: str, layers: list[list[str]]) -> list[str]:
    modules = _modules(root)
    wrong = []
    for name, path in modules.items():
        package = [*prefix.split("."), *name.split(".")[:-1]]
        for imported in _imports(path, package):
            if imported != prefix and not imported.startswith(f"{prefix}."):
                continue
            target = _resolve(imported, modules, prefix)
            same = name.partition(".")[0] == target.partition(".")[0] and "." in name
            if target != name and not same and _layer(target, layers) >= _layer(name, layers):
                wrong.append(f"{name} imports {target}")
    return wrong


def test_imports_go_only_downward() -> None:
    assert _upward(SOURCE, "holdfast", LAYERS) == []


def test_imports_go_only_downward_in_openssh() -> None:
    assert _upward(SOURCE / "openssh", "holdfast.openssh", OPENSSH_LAYERS) == []


def test_every_layer_names_modules_that_exist() -> None:
    for root, layers in ((SOURCE, LAYERS), (SOURCE / "openssh", OPENSSH_LAYERS)):
        modules = _modules(root)
        names = [name for layer in layers for name in layer]
        assert len(names) == len(set(names))
        for name in names:
            if name.endswith(".*"):
                assert any(module.startswith(name[:-1]) for module in modules)
            else:
                assert name in modules, f"{name} is gone; remove it from the list"


# sys.stdlib_module_names is of Python 3.10; so the test below, and not this one, covers 3.9.
@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs the list of Python 3.10")
def test_openssh_imports_the_standard_library_and_itself() -> None:
    for name, path in _modules(SOURCE / "openssh").items():
        for imported in _imports(path, ["holdfast", "openssh"]):
            if not imported.startswith("holdfast.openssh"):
                assert imported.partition(".")[0] in sys.stdlib_module_names, (name, imported)


def _python(script: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openssh_works_without_site_packages() -> None:
    # holdfast/__init__.py needs more than openssh; openssh can be lifted out whole, as here.
    names = [name for name in _modules(SOURCE / "openssh") if name != "__init__"]
    script = (
        "import sys, types\n"
        f"sys.path.insert(0, {str(SOURCE.parent)!r})\n"
        "holdfast = types.ModuleType('holdfast')\n"
        f"holdfast.__path__ = [{str(SOURCE)!r}]\n"
        "sys.modules['holdfast'] = holdfast\n"
        "import importlib\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module('holdfast.openssh.' + name)\n"
        # The package itself may be installed there.
        "files = {name: str(getattr(sys.modules[name], '__file__', '')) for name in sys.modules}\n"
        "print(sorted(name for name, file in files.items() if 'site-packages' in file\n"
        f"    and not file.startswith({str(SOURCE)!r})))\n"
        "print(len([name for name in sys.modules if name.startswith('holdfast.openssh.')]))\n"
    )
    assert _python(script, "-S", "-I").split("\n")[:2] == ["[]", str(len(names))]


def test_holdfast_itself_imports_without_site_packages() -> None:
    script = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import holdfast"
    _python(script, "-S", "-I")


@pytest.mark.parametrize(
    "heavy",
    [
        "pexpect",
        "sshconf",
        "tqdm",
        "tomli",
        "tomllib",
        "argparse",
        "asyncio",
        "holdfast.cli",
        "holdfast.testing",
        "pytest",
    ],
)
def test_importing_holdfast_does_not_import(heavy: str, imported: set[str]) -> None:
    assert heavy not in imported


@pytest.fixture(scope="module")
def imported() -> set[str]:
    script = "import sys, holdfast; print('\\n'.join(sys.modules))"
    return set(_python(script).split())


def test_nothing_of_the_package_is_imported_by_the_pytest_plugin() -> None:
    script = (
        "import sys, pytest, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('x', {str(SOURCE / 'pytest_plugin.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print([name for name in sys.modules if name.startswith('holdfast')])\n"
    )
    assert _python(script).strip() == "[]"
