"""Generates documentation pages from the code, into docs/generated.

The keys of the configuration come from the comments in `boneage_jax/config.py`, the command line from argparse, the
API from the docstrings of the modules in `API`, model cards and notebooks from their files.
"""

import argparse
import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import boneage_jax
from boneage_jax import command_line as flags
from boneage_jax.commands.main import COMMANDS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = Path(__file__).with_name("notebooks")
CARDS = ROOT / "boneage_jax" / "weights"
PROJECT = ("CONTRIBUTING", "SECURITY", "CHANGELOG")  # files of the repository's root
# Page: its modules, in the order in which a newcomer needs them.
API = {
    "prediction": (
        "boneage_jax",
        "boneage_jax.predict.predictor",
        "boneage_jax.predict.items",
        "boneage_jax.predict.prediction",
        "boneage_jax.predict.heatmap",
        "boneage_jax.predict.regions",
        "boneage_jax.regions.detector",
        "boneage_jax.predict.reference",
        "boneage_jax.sex",
        "boneage_jax.errors",
    ),
    "data": (
        "boneage_jax.data.dataset",
        "boneage_jax.data.radiograph",
        "boneage_jax.data.preprocess",
        "boneage_jax.data.hand",
        "boneage_jax.data.augment",
        "boneage_jax.data.rsna",
        "boneage_jax.data.splits",
        "boneage_jax.data.phantom",
    ),
    "dicom": (
        "boneage_jax.data.dicom",
        "boneage_jax.data.header",
        "boneage_jax.dicom_results.objects",
        "boneage_jax.node.service",
    ),
    "models": (
        "boneage_jax.models.network",
        "boneage_jax.models.inputs",
        "boneage_jax.models.heads",
        "boneage_jax.models.layers",
        "boneage_jax.models.convmixer",
        "boneage_jax.models.xception",
        "boneage_jax.models.inception_v3",
        "boneage_jax.models.bonet",
        "boneage_jax.models.resnet",
        "boneage_jax.models.efficientnet",
        "boneage_jax.models.convnextv2",
        "boneage_jax.models.compact_resnet",
        "boneage_jax.models.joint_crops",
    ),
    "training": (
        "boneage_jax.config",
        "boneage_jax.train.loop",
        "boneage_jax.train.experiment",
        "boneage_jax.train.optimizer",
        "boneage_jax.train.losses",
        "boneage_jax.train.step",
        "boneage_jax.train.checkpoint",
        "boneage_jax.train.evaluation",
        "boneage_jax.evaluate.metrics",
        "boneage_jax.evaluate.report",
    ),
    "weights": (
        "boneage_jax.released.weights",
        "boneage_jax.released.calibration",
        "boneage_jax.released.checks",
        "boneage_jax.pretrained.load",
        "boneage_jax.export.pack",
        "boneage_jax.export.card",
    ),
}
# Names that the package exports, but that are described in the modules that define them.
EXPORTED = [name for name in boneage_jax.__all__ if name != "load"]


def all_pages(folder: Path) -> None:
    """Writes every page, after removing pages that an earlier version of the code left in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {f"api/{name}": api(name, modules) for name, modules in API.items()}
    pages["configuration"] = configuration((ROOT / "boneage_jax" / "config.py").read_text())
    pages["command-line"] = command_line()
    pages |= {f"cards/{path.stem}": path.read_text() for path in sorted(CARDS.glob("*.md"))}
    pages |= {f"project/{name.lower()}": project(ROOT / f"{name}.md") for name in PROJECT}
    pages |= {f"notebooks/{path.stem}": notebook(path) for path in sorted(NOTEBOOKS.glob("*.py"))}
    for name, text in pages.items():
        path = (folder / name).with_suffix(".md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def api(name: str, modules: tuple[str, ...]) -> str:
    """A page with the docstrings of the modules."""
    sections = []
    for module in modules:
        options = f"   :exclude-members: {', '.join(EXPORTED)}\n" if module == "boneage_jax" else ""
        sections.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{options}```\n")
    return "\n".join([f"# API: {name}\n", *sections])


def configuration(source: str) -> str:
    """A page with a table for each section of `base()`: key, default, comment."""
    lines = [
        "# Configuration",
        "",
        "Every key of a configuration, with its default. A file in `configs/` takes `boneage_jax.config.base()` and",
        "changes the keys that differ; on the command line each key is a flag: `--config.train.batch_size=32`.",
    ]
    section = None
    for key, default, comment in keys(source):
        if section != (section := key.rpartition(".")[0]):
            lines += ["", f"## {section or 'Top level'}", "", "| key | default | meaning |", "|---|---|---|"]
        cells = (f"`{key}`", f"`{default}`", comment.replace("|", "\\|"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def keys(source: str) -> Iterator[tuple[str, str, str]]:
    """Each key of `base()` as "section.key", its default as in the source, and the comments above and after it."""
    above: list[str] = []
    body = source[source.index("def base()") : source.index("    return config\n")]
    for line in body.splitlines():
        if note := re.fullmatch(r"\s+# (.*)", line):
            above.append(note[1])
        elif setting := re.fullmatch(r"    config\.([\w.]+) = (.*?)(?:  # (.*))?", line):
            key, default, behind = setting.groups()
            comment = " ".join([*above, behind or ""]).strip()
            if default != "ConfigDict()" or comment:
                yield key, "{}" if default == "ConfigDict()" else default, comment
            above = []
        else:
            above = []


def command_line() -> str:
    """A page with what `boneage COMMAND --help` prints."""
    os.environ["COLUMNS"] = "100"  # the width of argparse's help
    parts = [
        "# Command line",
        "",
        "`boneage COMMAND --help` prints these texts. Training has a program of its own, `launch.py`, which",
        "the last section describes.",
    ]
    for command in COMMANDS:
        parts += ["", f"## boneage {command.NAME}", "", "```text", help_text(command), "```"]
    return "\n".join([*parts, "", *launch()]) + "\n"


def launch() -> list[str]:
    """The section about `launch.py`: its docstring and its flags."""
    about = ast.get_docstring(ast.parse((ROOT / "launch.py").read_text())) or ""
    _, _, described = flags.FLAGS.module_help(flags).strip().partition("\n")
    return [
        *("## launch.py", "", "```text", about, "", described, "```", ""),
        "`--config` names a file in `configs/`; without it, the configuration is that of the run in `--workdir`.",
        "The keys of the [configuration](configuration.md) are flags as well.",
    ]


def help_text(command: ModuleType) -> str:
    """The help of one subcommand."""
    parser = argparse.ArgumentParser(
        prog=f"boneage {command.NAME}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    return parser.format_help().rstrip()


def project(path: Path) -> str:
    """A file of the repository's root as a page, with its links to other pages."""
    return path.read_text().replace("](docs/", "](../../")


def notebook(path: Path) -> str:
    """A notebook as a page: its text, and the code that CI executes."""
    import jupytext  # imported here because only this needs the documentation packages

    where, command = f"`docs/notebooks/{path.name}`", f"`jupytext --to notebook {path.name}`"
    note = f":::{{note}}\nThis page is the notebook {where}; {command} makes a file for Jupyter of it.\n:::"
    title, _, rest = jupytext.writes(jupytext.read(path), fmt="md").split("---\n", 2)[-1].lstrip().partition("\n")
    return f"{title}\n\n{note}\n{rest}"
