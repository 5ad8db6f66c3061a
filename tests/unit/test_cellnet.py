"""What `import cellnet` offers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cellnet

PACKAGE = Path(cellnet.__file__).parent


def test_the_public_names_are_these() -> None:
    """Others call them: a name may be added on purpose, and none taken away."""
    assert cellnet.__all__ == [
        *("Answer", "Bank", "CellnetError", "Frame", "Model", "ModelVersion", "Registry"),
        *("load", "open_bank", "open_registry"),
    ]
    for name in cellnet.__all__:
        assert getattr(cellnet, name).__name__ == name and name in dir(cellnet)


def test_a_name_that_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'cellnet' has no attribute 'lod'"):
        cellnet.lod  # type: ignore[attr-defined]  # noqa: B018


def test_a_type_checker_sees_each_name_where_it_is_made() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [seen] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(homes) == sorted(cellnet.__all__)
    for name, module in homes.items():
        assert getattr(cellnet, name).__module__ == module
    assert (PACKAGE / "py.typed").is_file()


def test_to_import_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import cellnet; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "torch", "pydantic", "ray"} & set(ast.literal_eval(done.stdout))
    assert [name for name in ast.literal_eval(done.stdout) if name.startswith("cellnet")] == ["cellnet"]
