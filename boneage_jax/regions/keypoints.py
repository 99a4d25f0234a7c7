"""Writes the centres of ossification regions as key points, the additional input of BoNet, for all RSNA radiographs.

    python -m boneage_jax.regions.keypoints --data DIR --out FILE.json

The file has the format that `data.keypoints` reads. The 17 points are the centres of the detector's regions in the
order of `fingers.NAMES`; a region that is not found is not marked. BoNet's authors annotated 17 points by hand; these
points replace them: the joints and epiphyses that are examined in the method of Tanner and Whitehouse.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from tqdm import tqdm

from boneage_jax import compilation, program
from boneage_jax.atomic_files import write_text
from boneage_jax.data import rsna
from boneage_jax.data.files import make_folder
from boneage_jax.data.radiograph import read
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions.detector import Regions, packaged


def key_points(regions: Regions) -> list[float]:
    """x, y and v of every region in `fingers.NAMES`, as stored in the file: zeros where not found."""
    points = regions.centres()
    seen = ~np.isnan(points[:, :1])
    return np.hstack([np.nan_to_num(points), 2.0 * seen]).ravel().tolist()


def document(found: Iterable[tuple[str, tuple[int, ...], Regions]]) -> dict[str, Any]:
    """The contents of the file, from names, shapes (height, width) and regions of images."""
    images, annotations = [], []
    for number, (name, (height, width), regions) in enumerate(found):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append({"image_id": number, "keypoints": key_points(regions)})
    return {"images": images, "annotations": annotations}


def main() -> int:
    """Detects the key points of a folder of radiographs and writes them as JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="the folder with the RSNA files")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the file to write, .json")
    flags = parser.parse_args()
    compilation.use_cache(compilation.cache_folder(""))
    labelled = [image for split in rsna.find(flags.data).values() for image in split]
    make_folder(flags.out.parent, "--out")
    if flags.out.is_dir():
        raise BoneAgeError(f"--out {flags.out} is a folder; expected a file to write, .json")
    detector = packaged()

    def found(image: rsna.LabelledImage) -> tuple[str, tuple[int, ...], Regions]:
        pixels, _ = read(image.file)
        return f"{image.id}.png", pixels.shape, detector.find(pixels)

    write_text(flags.out, json.dumps(document(found(one) for one in tqdm(labelled, unit=" images"))) + "\n")
    return 0


if __name__ == "__main__":
    program.leave(lambda: program.run(main))
