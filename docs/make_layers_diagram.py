"""Draws docs/layers.svg from the contract in pyproject.toml: python docs/make_layers_diagram.py."""

import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
WIDTH, ROW, GAP, MARGIN = 760, 46, 10, 12
PURPOSE = {
    "benchmark": "speed, memory",
    "commands": "boneage",
    "command_line": "flags of launch.py",
    "data": "files, preprocessing, pipeline",
    "dicom_results": "results as DICOM objects",
    "evaluate": "metrics, report",
    "export": "pack, model card",
    "inference": "network to months",
    "kernels": "C++ for CPUs",
    "models": "trunks, heads",
    "node": "DICOM node",
    "predict": "predictor, heat map, results",
    "pretrained": "weights of others",
    "regions": "detector of ossification regions",
    "released": "weights file, calibration, checks",
    "report": "a page about a child",
    "serve": "HTTP service, page",
    "train": "loop, step, optimiser, checkpoints",
}


def layers(settings: str) -> list[list[str]]:
    """The rows of the package's contract, from top to bottom, each with its modules."""
    contracts = tomllib.loads(settings)["tool"]["importlinter"]["contracts"]
    contract = next(one for one in contracts if one.get("containers") == ["boneage_jax"])
    return [[module.strip() for module in row.split("|")] for row in contract["layers"]]


def svg(rows: list[list[str]]) -> str:
    """A row of boxes for each layer."""
    height = 2 * MARGIN + len(rows) * (ROW + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number, modules in enumerate(rows):
        y = MARGIN + number * (ROW + GAP)
        width = (WIDTH - 2 * MARGIN - GAP * (len(modules) - 1)) / len(modules)
        for place, module in enumerate(modules):
            parts += box(MARGIN + place * (width + GAP), y, width, module)
    return "\n".join([*parts, "</svg>"]) + "\n"


def box(x: float, y: float, width: float, module: str) -> list[str]:
    """One module, with its purpose if it is a package."""
    purpose = PURPOSE.get(module, "")
    middle = x + width / 2
    line = y + (20 if purpose else 28)
    name = f'<text x="{middle:.1f}" y="{line}" font-size="14" text-anchor="middle">{module}</text>'
    parts = [
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW}" rx="5" fill="#e8eef7" stroke="#5b7aa8"/>',
        name,
    ]
    if purpose:
        style = 'font-size="11" fill="#444444" text-anchor="middle"'
        parts.append(f'<text x="{middle:.1f}" y="{y + 37}" {style}>{escape(purpose)}</text>')
    return parts


if __name__ == "__main__":
    target = HERE / "layers.svg"
    target.write_text(svg(layers((HERE.parent / "pyproject.toml").read_text())))
    print(f"wrote {target}")
