"""Imports point one way, `ray` and `vllm` stay at the edge, and pure layers are quick to import."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rayrlhf"

LAYERS = (
    ("types", "config", "functional", "metrics", "run_directory", "checkpoint"),
    ("algorithms", "weights"),
    ("data",),
    ("models", "rewards"),
    ("training", "engines"),
    ("pool", "cluster"),
    ("workers",),
    ("ppo", "offline", "demo"),
    ("cli",),
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}

RAY_MAY_BE_IN = ("cluster/", "ppo/", "offline/stage.py")
VLLM_MAY_BE_IN = ("engines/vllm/", "cluster/doctor.py")

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def part_of(path: Path) -> str:
    """The part of the package that a module belongs to: `data` for `data/formats/chat.py`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source: str) -> Iterator[str]:
    """Every module or name that `source` imports, inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            assert isinstance(node.args[0], ast.Constant), "a computed import hides the layer"
            yield str(node.args[0].value)


def parts_imported(source: str) -> set[str]:
    """The parts of the package that `source` imports."""
    names = [name.split(".") for name in imports(source)]
    return {name[1] for name in names if name[0] == "rayrlhf" and len(name) > 1 and name[1] != "__version__"}


def imports_package(source: str, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imports(source))


def test_every_part_of_the_package_has_a_layer():
    parts = {part_of(path) for path in MODULES} - {"__init__"}
    assert parts == set(LEVELS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_its_own_and_lower_layers(path):
    part = part_of(path)
    level = LEVELS.get(part, -1)  # rayrlhf/__init__.py stands below everything
    above = {name for name in parts_imported(path.read_text(encoding="utf-8")) if LEVELS[name] > level}
    assert not above, f"{name_of(path)} is in layer {part!r} and imports from above: {sorted(above)}"


@pytest.mark.parametrize(("package", "allowed"), [("ray", RAY_MAY_BE_IN), ("vllm", VLLM_MAY_BE_IN)])
def test_ray_and_vllm_are_imported_only_at_the_edge(package, allowed):
    users = [name_of(path) for path in MODULES if imports_package(path.read_text(encoding="utf-8"), package)]
    assert users
    assert [name for name in users if not name.startswith(allowed)] == []


def test_lazy_typing_only_and_dynamic_imports_count():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import ray.actor
def later():
    from rayrlhf.ppo import loop as ppo
    from rayrlhf import cluster
    import importlib
    importlib.import_module("vllm.config")
"""
    assert parts_imported(source) == {"ppo", "cluster"}
    assert imports_package(source, "ray")
    assert imports_package(source, "vllm")
    assert not imports_package("import rayrlhf.types", "ray")


PROBE = """
import json, sys
import {module}
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""

PURE = (
    "rayrlhf.types",
    "rayrlhf.config",
    "rayrlhf.data.ingest.reader",
    "rayrlhf.data.tokens.tokenise",
    "rayrlhf.data.tokens.prepare",
    "rayrlhf.data.cleaning.rules",
    "rayrlhf.training.batching",
    "rayrlhf.data.tokens.splits",
    "rayrlhf.data.templates",
    "rayrlhf.rewards",
    "rayrlhf.pool.goodput",
    "rayrlhf.pool.pool",
    "rayrlhf.pool.samples",
    "rayrlhf.run_directory",
    "rayrlhf.checkpoint",
    "rayrlhf.cluster.machine",
    "rayrlhf.engines",
    "rayrlhf.weights.store",
    "rayrlhf.workers.sampler",
)


LIGHT = frozenset(
    (
        "annotated_types",
        "jinja2",
        "markupsafe",
        "msgspec",
        "numpy",
        "psutil",
        "pydantic",
        "pydantic_core",
        "rayrlhf",
        "regex",
        "typing_extensions",
        "typing_inspection",
        "yaml",
    )
)
"""Other packages that pure layers may load at import: all of them together take well below a second."""


@pytest.mark.parametrize("modules", [PURE[:2], PURE], ids=["types and config", "all"])
def test_pure_layers_load_only_light_packages_at_import(modules):
    command = [sys.executable, "-c", PROBE.format(module=", ".join(modules))]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    packages = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert packages - {"cython_runtime"} <= LIGHT


def test_what_needs_torch_still_needs_neither_ray_nor_vllm():
    modules = "rayrlhf.workers.learner, rayrlhf.training.sft, rayrlhf.workers.credit"
    answer = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=modules)], capture_output=True, text=True, check=True
    ).stdout
    loaded = json.loads(answer)
    assert "torch" in loaded
    assert not {"ray", "vllm"} & set(loaded)
