"""Make reading.jpg, dicom.jpg and regions.jpg from one reading of a drawn hand: `python docs/make_result_pictures.py`.

Needs `pip install -e ".[dicom,test]"`.
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pydicom

from boneage_jax.commands.main import main

HEIGHT = 520  # pixels, of the pictures


def read_hand(folder: Path) -> None:
    """Writes hand.dcm and the output files of `boneage predict` into the folder."""
    from tools import readme_inputs  # found in the checkout, see the end of this file

    (folder / "hand.dcm").write_bytes(readme_inputs.dcm(100, "102M", side=1024))
    outputs = [f"--{name}={folder}" for name in ("heatmap", "regions", "dicom-out")]
    if status := main(["predict", str(folder / "hand.dcm"), *outputs]):
        raise SystemExit(status)


def read(path: Path) -> np.ndarray:
    """The picture [H, W, 3], BGR."""
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return picture


def save(picture: np.ndarray, target: Path, height: int = HEIGHT) -> None:
    """Writes the picture [H, W, 3], BGR, reduced to this height."""
    width = round(picture.shape[1] * height / picture.shape[0])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(target), small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"wrote {target} ({target.stat().st_size / 1024:.0f} kB)")


if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path.insert(0, str(here.parent))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        read_hand(folder)
        save(read(folder / "hand-heatmap.png"), here / "reading.jpg")
        save(read(folder / "hand-regions.png"), here / "regions.jpg", height=860)  # large enough to read the ages
        capture = pydicom.dcmread(folder / "hand-boneage-sc.dcm").pixel_array
        save(np.ascontiguousarray(capture[..., ::-1]), here / "dicom.jpg")
