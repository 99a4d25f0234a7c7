"""Make docs/report.png, a report about a drawn child, rendered by Chromium: `python docs/make_report_figure.py`."""

import subprocess
import tempfile
from pathlib import Path

import cv2
from PIL import Image

from boneage_jax.commands.main import main
from boneage_jax.data.phantom import render
from boneage_jax.sex import Sex

VISITS = {"2021-06-10": 72, "2023-05-22": 96, "2025-06-02": 120}
"""Date of each visit, and the bone age in months of its drawn hand; the child was born in 2014."""
BORN = "2014-03-02"
WINDOW = (860, 1130)


def write_visits(folder: Path) -> Path:
    """Draws a radiograph for each visit, and returns the table of dates beside them."""
    rows = ["id,date,birth_date,sex"]
    for date, months in VISITS.items():
        image = render(months, Sex.FEMALE, size=1000, seed=13).image
        cv2.imwrite(str(folder / "visits" / f"{date}.png"), image)
        rows.append(f"{date},{date},{BORN},F")
    table = folder / "visits.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def photograph(page: Path, target: Path) -> None:
    """Takes a picture of the page; 256 colours are enough."""
    shot = page.with_suffix(".png")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
    subprocess.run([*browser, size, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True)
    Image.open(shot).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


if __name__ == "__main__":
    target = Path(__file__).with_name("report.png")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "visits").mkdir()
        table, page = write_visits(folder), folder / "report.html"
        # The input checks are fitted on radiographs only and may refuse a drawing.
        status = main(["report", str(folder / "visits"), f"--labels={table}", f"--out={page}", "--accept-warnings"])
        if status:
            raise SystemExit(status)
        photograph(page, target)
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} kB)")
