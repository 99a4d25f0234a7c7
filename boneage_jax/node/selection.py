"""Decides which of the received objects the node reads."""

from pydicom.dataset import Dataset

from boneage_jax.data.dicom_header import read_header
from boneage_jax.data.header import can_be_hand
from boneage_jax.dicom_results.identity import EQUIPMENT
from boneage_jax.dicom_results.source import CLASSES, read_elements
from boneage_jax.errors import BoneAgeError

_MODALITIES = ("", "CR", "DX", "RG", "OT", "SC")  # OT and SC: Secondary Captures of radiographs
_KEYWORDS = ("Modality", "Manufacturer", "ManufacturerModelName")
_REGION = ("BodyPartExamined", "AnatomicRegionSequence")


def reason_to_ignore(sop_class: str, data: bytes) -> str:
    """The reason not to read an object, or "".

    The node reads CR, DX and Secondary Capture images of a hand or of an unnamed body part, except those that this
    package made.

    Args:
        sop_class: SOP Class UID of the object.
        data: the bytes of its file.

    Raises:
        BoneAgeError: the header is damaged.
    """
    if sop_class not in CLASSES:
        return "it is not a CR, DX or Secondary Capture image"
    header = read_elements(data, (*_KEYWORDS, *_REGION), "the object")
    modality, *made_by = (str(header.get(keyword) or "").strip() for keyword in _KEYWORDS)
    if made_by == [EQUIPMENT, EQUIPMENT]:
        return "it is a result of this package"
    if modality.upper() not in _MODALITIES:
        return "its modality is not radiography"
    if not can_be_hand(_body_part(header)):
        return "its body part is not a hand"
    return ""


def _body_part(header: Dataset) -> str:
    """The body part as predictions read it: Body Part Examined or else Anatomic Region Sequence."""
    try:
        return read_header(header).body_part
    except Exception as error:  # a sequence of another value representation; the message may quote it
        raise BoneAgeError(f"the object has a damaged header ({type(error).__name__}); export it again") from None
