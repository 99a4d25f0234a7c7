"""Adds a model from a template: python -m tools.new_model NAME.

Writes the module, its configuration, its test settings and its parity case, and registers the model. The new model is
a small convolutional network that trains and passes its tests immediately; replace its layers with those of the paper
and resolve each TODO.
"""

import argparse
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).with_name("model_template")
# Maps each template to the file that is written from it.
FILES = {
    "model.py.txt": "boneage_jax/models/{name}.py",
    "config.py.txt": "configs/{name}.py",
    "family.py.txt": "tests/models/families/{name}.py",
    "original.py.txt": "tests/parity/originals/{name}.py",
}
REGISTRY = Path("boneage_jax/models/network.py")
NEXT = """
train it on drawn hands:  python launch.py --config=configs/{name}.py --config.data.name=phantom
run its tests:            pytest tests/models tests/test_configs.py -k {name}
compare with Keras:       KERAS_BACKEND=jax pytest -m parity tests/parity -k {name}
then:                     replace every TODO in these files and add the model to docs/zoo.md"""


def main(argv: Sequence[str] | None = None, root: Path = Path()) -> int:
    """Adds the model to the checkout `root`; status 1 and one line on stderr if the name cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tools.new_model", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="of the module and of the model: small letters, digits and _")
    name = parser.parse_args(argv).name
    try:
        files = add(name, root)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    print(NEXT.format(name=name))
    return 0


def add(name: str, root: Path) -> list[Path]:
    """Writes the files and registers the model.

    Returns:
        The files that are new or changed, relative to `root`.

    Raises:
        ValueError: `root` is no checkout, or the name is invalid or taken; nothing has been written then.
    """
    if not (root / REGISTRY).is_file():
        raise ValueError(f"{root.absolute()} contains no {REGISTRY}; run the command in the root of the checkout")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} cannot name a module; use small letters, digits and _, such as my_net2")
    targets = {template: Path(path.format(name=name)) for template, path in FILES.items()}
    if taken := [str(path) for path in targets.values() if (root / path).exists()]:
        raise ValueError(f"the name {name!r} is taken by {', '.join(taken)}; choose another one")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    registered = register((root / REGISTRY).read_text(), name, class_name)
    for template, path in targets.items():
        text = Template((TEMPLATES / template).read_text()).substitute(name=name, Class=class_name)
        (root / path).write_text(text)
    (root / REGISTRY).write_text(registered)
    return [*targets.values(), REGISTRY]


def register(source: str, name: str, class_name: str) -> str:
    """The source of `network.py` with the model's import and its entry in TRUNKS, both in alphabetical order.

    Raises:
        ValueError: a trunk of that name is registered already.
    """
    lines = source.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("TRUNKS"))
    end = next(i for i in range(start, len(lines)) if lines[i] == "}\n")
    if re.search(rf"\b{class_name}\b", source + (TEMPLATES / "model.py.txt").read_text()):
        raise ValueError(f"the name {name!r} gives the class {class_name}, which exists already; choose another one")
    if any(line.startswith(f'    "{name}":') for line in lines[start:end]):
        raise ValueError(f"the name {name!r} is taken by a trunk in {REGISTRY}; choose another one")
    imports = [i for i in range(start) if lines[i].startswith("from boneage_jax.models.")]
    _insert_sorted(lines, range(start + 1, end), f'    "{name}": {class_name},\n')
    _insert_sorted(lines, imports, f"from boneage_jax.models.{name} import {class_name}\n")
    return "".join(lines)


def _insert_sorted(lines: list[str], places: Sequence[int], line: str) -> None:
    """Inserts before the first of the lines at `places` that sorts after it, or after the last of them."""
    # The key ends before the class: "convnextv2" sorts before "convnextv2_large".
    word = line.split()[1 if line.startswith("from") else 0].strip('":')
    after = (i for i in places if lines[i].split()[1 if line.startswith("from") else 0].strip('":') > word)
    lines.insert(next(after, places[-1] + 1), line)


if __name__ == "__main__":
    sys.exit(main())
