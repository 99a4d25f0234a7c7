"""What `pip install .` installs besides the modules."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

import boneage_jax
from boneage_jax.kernels import library
from boneage_jax.released import weights

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_weights_and_model_cards_are_package_data():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["boneage_jax"]
    folder = weights.FOLDER.relative_to(Path(boneage_jax.__file__).parent)
    for ending in (".safetensors", ".md"):
        assert any(PurePosixPath(folder, f"any{ending}").match(pattern) for pattern in patterns), ending


def test_the_command_is_installed():
    assert SETTINGS["project"]["scripts"] == {"boneage": "boneage_jax.commands.main:command"}


def test_kernels_are_built_for_the_instruction_sets_that_are_checked_at_runtime():
    linux_names = {"bmi": "bmi1", "lzcnt": "abm", "avx512bf16": "avx512_bf16"}  # where they differ from the compiler's
    flags = {name: [flag.removeprefix("-m") for flag in flags] for name, flags in _setup_variants().items()}
    built = {f"cpu_{name}": {linux_names.get(one, one) for one in each} for name, each in flags.items()}
    assert built == library.VARIANTS


def _setup_variants():
    """`VARIANTS` of setup.py, which would start a build if it were imported."""
    names = {"AVX2", "AVX512", "VARIANTS"}
    body: list[ast.stmt] = [
        node
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names
    ]
    found: dict[str, dict[str, list[str]]] = {}
    exec(compile(ast.Module(body, []), "setup.py", "exec"), found)
    return found["VARIANTS"]


def _requirements():
    """Every dependency that pyproject.toml declares, those of the extras too."""
    project = SETTINGS["project"]
    extras = (one for extra in project["optional-dependencies"].values() for one in extra)
    return [Requirement(one) for one in (*project["dependencies"], *extras)]


def test_constraints_pin_every_dependency_to_a_version_that_is_allowed():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    declared = [one for one in _requirements() if one.name != "boneage-jax"]
    assert [str(one) for one in declared if _normal(one.name) not in pins] == []
    assert [str(one) for one in declared if pins[_normal(one.name)] not in one.specifier] == []


def test_every_imported_package_is_a_declared_dependency():
    declared = {_normal(requirement.name) for requirement in _requirements()}
    providers = metadata.packages_distributions()
    imported = {name for path in (ROOT / "boneage_jax").rglob("*.py") for name in _imported(path)}
    undeclared = {
        name
        for name in imported - sys.stdlib_module_names - {"boneage_jax"}
        if name in providers and declared.isdisjoint(map(_normal, providers[name]))
    }
    assert undeclared == set()
    assert {"jax", "ml_dtypes", "cv2"} <= imported


def _imported(path):
    """Top-level names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _normal(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()
