"""The Structured Report of a reading: a TID 1500 measurement report with the bone age as a LOINC-coded measurement."""

from collections.abc import Iterator

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from boneage_jax.dicom_results.identity import EQUIPMENT, device_uid, identity, provenance_of
from boneage_jax.dicom_results.wording import sentences
from boneage_jax.predict import reference
from boneage_jax.predict.results import Reading, Result
from boneage_jax.terminal import printable
from boneage_jax.version import __version__

BONE_AGE = Code("85151-9", "LN", "XR Bone age")
METHOD = Code("85150-1", "LN", "Bone age method")
PROCEDURE = Code("24724-7", "LN", "Views bone age")
NETWORK = Code("network", "99BONEAGE", "Neural network trained on Greulich and Pyle readings")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
ABOVE = Code("371886008", "SCT", "+, range of upper measurement uncertainty")
BELOW = Code("371885007", "SCT", "-, range of lower measurement uncertainty")
MONTH = codes.UCUM.Month

_SIDES = {"L": codes.SCT.Left, "R": codes.SCT.Right}
_SERIES_NUMBER = 9001  # above the series numbers that modalities use
_DIGITS = 2


def make_report(source: Dataset, result: Result) -> sr.Comprehensive3DSR:
    """Makes the report of a radiograph, flagged as complete, preliminary and unverified.

    Its measurement group holds the bone age, the chronological age, the method, and `wording.sentences` as comments.
    The properties of the bone age are its standard deviation, the distances to the ends of the 90 % interval, and the
    SD score. Ages are in months (UCUM mo).

    Args:
        source: from `source.read_source`.
        result: the result, with one reading.
    """
    uids = identity(source, result, "report")
    device = sr.DeviceObserverIdentifyingAttributes(
        device_uid(), name=EQUIPMENT, manufacturer_name=EQUIPMENT, model_name=EQUIPMENT
    )
    context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
    return sr.Comprehensive3DSR(
        evidence=[source],
        content=sr.MeasurementReport(context, PROCEDURE, [_group(source, result, uids.tracking)]),
        series_instance_uid=uids.series,
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        instance_number=1,
        is_complete=True,
        specific_character_set=None,  # `objects` sets it; highdicom does not support all of them
        manufacturer=EQUIPMENT,
        manufacturer_model_name=EQUIPMENT,
        software_versions=__version__,
        series_description="Bone age report, research use only",
        coding_schemes=[CodingSchemeIdentificationItem("99BONEAGE", name="Codes of boneage_jax")],
    )


def _group(source: Dataset, result: Result, tracking_uid: str) -> sr.MeasurementsAndQualitativeEvaluations:
    (reading,) = result.readings
    bone_age = sr.Measurement(BONE_AGE, round(reading.months, _DIGITS), MONTH, properties=_properties(reading))
    measured = [bone_age]
    if result.age is not None:
        measured.append(sr.Measurement(codes.DCM.SubjectAge, round(result.age, _DIGITS), MONTH))
    side = _SIDES.get(str(source.get("ImageLaterality") or source.get("Laterality") or ""))
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(tracking_uid, "Bone age"),
        finding_sites=[sr.FindingSite(codes.SCT.Hand, laterality=side)],
        algorithm_id=_algorithm(result),
        measurements=measured,
        qualitative_evaluations=[sr.QualitativeEvaluation(METHOD, NETWORK)],
        source_images=[sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)],
    )
    group[0].ContentSequence.extend(
        sr.TextContentItem(codes.DCM.Comment, sentence, sr.RelationshipTypeValues.CONTAINS)
        for sentence in sentences(result)
    )
    return group


def _algorithm(result: Result) -> sr.AlgorithmIdentification:
    made = provenance_of(result)
    parameters = [
        f"weights {printable(made.weights)}",
        f"weights SHA-256 {made.sha256}",
        f"preprocessing {made.preprocessing}",
    ]
    return sr.AlgorithmIdentification(
        EQUIPMENT, made.version, parameters, family=codes.DCM.ArtificialIntelligence, manufacturer=EQUIPMENT
    )


def _properties(reading: Reading) -> sr.MeasurementProperties:
    statistics = None
    if reading.sd_score is not None:
        score = _property(codes.DCM.ZScoreOfMeasurement, reading.sd_score, codes.UCUM.NoUnits)
        statistics = sr.MeasurementStatisticalProperties(
            [score], description="Children of the same age and sex", authority=reference.TABLE
        )
    properties = sr.MeasurementProperties(measurement_statistical_properties=statistics)
    properties.extend(_uncertainty(reading))  # highdicom would leave the ranges without a unit
    return properties


def _uncertainty(reading: Reading) -> Iterator[sr.NumContentItem]:
    """The expected error, and how far the 90 % interval reaches above and below the bone age."""
    if reading.std is not None:
        yield _property(STANDARD_DEVIATION, reading.std, MONTH)
    if reading.interval is not None:
        low, high = reading.interval
        yield _property(ABOVE, high - reading.months, MONTH)
        yield _property(BELOW, reading.months - low, MONTH)


def _property(name: Code, value: float, unit: Code) -> sr.NumContentItem:
    return sr.NumContentItem(
        name, round(value, _DIGITS), unit, relationship_type=sr.RelationshipTypeValues.HAS_PROPERTIES
    )
