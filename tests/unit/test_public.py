"""What is public exists, and says what it does."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import holdfast
import holdfast.errors
import holdfast.testing
from holdfast.openssh import errors as openssh_errors

SOURCE = Path(holdfast.__file__).parent


@pytest.mark.parametrize("name", holdfast.__all__)
def test_every_exported_name_exists_and_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(holdfast, name))


def test_the_exports_are_sorted_and_complete() -> None:
    assert list(holdfast.__all__) == sorted(holdfast.__all__)
    assert set(holdfast._MODULES) == set(holdfast.__all__)
    assert set(holdfast.__all__) <= set(dir(holdfast))
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(holdfast, "no_such_name")  # noqa: B009


def test_every_error_is_exported_and_under_one_base() -> None:
    found = {
        name
        for module in (holdfast.errors, openssh_errors)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Exception) and name[0] != "_"
    }
    assert found <= set(holdfast.__all__)
    assert found == set(holdfast.errors.__all__)
    for name in found:
        assert issubclass(getattr(holdfast, name), holdfast.HoldfastError)
        assert name in (holdfast.errors.__doc__ or "")


def _members(value: object) -> Iterator[str]:
    """Public methods and properties that a class defines itself."""
    for name, member in vars(value).items():
        if not name.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, (property, classmethod))
        ):
            yield name


# What says all with its name, and is explained where the class is.
_OBVIOUS = {"Connection.mode", "Connection.closed", "Connection.purpose", "Connection.settings"}


@pytest.mark.parametrize(
    ("module", "name"),
    [(holdfast, name) for name in holdfast.__all__]
    + [(holdfast.testing, name) for name in holdfast.testing.__all__],
)
def test_every_public_method_is_documented(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        silent = {
            f"{name}.{member}"
            for member in _members(value)
            if not inspect.getdoc(inspect.getattr_static(value, member))
        }
        assert silent <= _OBVIOUS


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
