"""Writes the centres of ossification regions as key points, the additional input of BoNet, for all RSNA radiographs.

    python -m boneage_jax.regions.keypoints --data DIR --out FILE.json

The file has the format that `data.keypoints` reads. The 17 points are the centres of the detector's regions in the
order of `fingers.NAMES`; a region that is not found is not marked. BoNet's authors annotated 17 points by hand; these
points replace them: the joints and epiphyses that are examined in the method of Tanner and Whitehouse.

Until all radiographs are done, the points found so far are saved every minute in FILE.json.partial. After a stop, the
same command continues from there; radiographs that have changed since then are read again.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from boneage_jax import compilation, program
from boneage_jax.atomic_files import write_text
from boneage_jax.data import phantom, rsna
from boneage_jax.data.files import File, make_folder
from boneage_jax.data.radiograph import read
from boneage_jax.errors import BoneAgeError
from boneage_jax.regions.detector import Detector, Regions, packaged
from boneage_jax.version import __version__

_SAVE_SECONDS = 60.0
Marks = dict[str, Any]
"""The "width" and "height" of an image in pixels and its "keypoints", as JSON types."""


def key_points(regions: Regions) -> list[float]:
    """x, y and v of every region in `fingers.NAMES`, as stored in the file: zeros where not found."""
    points = regions.centres()
    seen = ~np.isnan(points[:, :1])
    return np.hstack([np.nan_to_num(points), 2.0 * seen]).ravel().tolist()


def marks(detector: Detector, image: np.ndarray) -> Marks:
    """Detects the key points of an image `[H, W]` (uint8 or uint16, square pixels)."""
    height, width = image.shape
    return {"width": width, "height": height, "keypoints": key_points(detector.find(image))}


def document(found: Iterable[tuple[str, Marks]]) -> dict[str, Any]:
    """The contents of the file, from the names of the images and their marks."""
    images, annotations = [], []
    for number, (name, one) in enumerate(found):
        images.append({"id": number, "file_name": name, "width": one["width"], "height": one["height"]})
        annotations.append({"image_id": number, "keypoints": one["keypoints"]})
    return {"images": images, "annotations": annotations}


def mark_all(labelled: Sequence[rsna.LabelledImage], detector: Detector, partial: pathlib.Path) -> list[Marks]:
    """Detects the key points of all images, except those that an earlier run has saved in `partial`.

    The file `partial` is updated every minute, and once more at the end, after an error and after a signal.

    Raises:
      BoneAgeError: an image cannot be read, or `partial` cannot be written.
    """
    made_by = _origin(detector)
    found = _saved(partial, made_by)
    keys = [_key(one.file) for one in labelled]
    missing = [(key, one.file) for key, one in zip(keys, labelled, strict=True) if key not in found]
    done = len(labelled) - len(missing)

    def save() -> float:
        write_text(partial, json.dumps({"made_by": made_by, "found": found}))
        return time.monotonic()

    with tqdm(total=len(labelled), initial=done, desc="Finding regions", unit=" images") as bar:
        saved = save()  # an unusable folder is an error now, not after a minute
        try:
            for key, file in missing:
                found[key] = marks(detector, read(file)[0])
                bar.update()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    saved = save()
        finally:
            save()
    return [found[key] for key in keys]


def _origin(detector: Detector) -> dict[str, Any]:
    """What the points depend on besides the image: weights, version, and by an example the code."""
    example = marks(detector, phantom.render(120.0, 0, size=128, seed=0).image)
    return {"boneage_jax": __version__, "weights": detector.sha256, "example": example}


def _key(file: File) -> str:
    """Identifies the contents of an image file, like the manifest of the prepared images."""
    return json.dumps([file.name, file.size, file.mark, file.original_size])


def _saved(partial: pathlib.Path, made_by: dict[str, Any]) -> dict[str, Marks]:
    """The marks by `_key` that an earlier run has saved; none if there are none, or others would be found now."""
    try:
        stored = json.loads(partial.read_text(encoding="utf-8"))
        before, found = stored["made_by"], dict(stored["found"])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BoneAgeError(f"{partial} cannot be read: {error.strerror}; correct this or delete it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BoneAgeError(f"{partial} is damaged ({error!r}); delete it to start again") from None
    if before == made_by:
        return found
    logging.warning("%s was made by another detector or version; all images are read again.", partial)
    return {}


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
    partial = flags.out.with_name(f"{flags.out.name}.partial")
    found = mark_all(labelled, packaged(), partial)
    names = [f"{image.id}.png" for image in labelled]
    write_text(flags.out, json.dumps(document(zip(names, found, strict=True))) + "\n")
    partial.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    program.leave(lambda: program.run(main))
