"""Schemas of the JSON responses, for OpenAPI; `Result.to_dict` and `about.describe` produce the JSON."""

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    """Why a request was not answered with a reading."""

    error: str = Field(description="what is wrong, and what to do")


class Health(BaseModel):
    """The service is up, and its weights are loaded."""

    status: str = Field(description='"ok"')


class Provenance(BaseModel):
    """Version of the program, and the weights that it reads with."""

    version: str = Field(description="of boneage_jax")
    weights: str
    weights_sha256: str | None
    preprocessing: int = Field(description="version of the path from pixels to network input")
    time: str = Field(description="UTC, ISO 8601")
    notice: str


class Figures(BaseModel):
    """A reading for one sex."""

    months: float | None = Field(description="bone age; null where both sexes were read, or none")
    years_months: str | None = Field(description="the bone age in words")
    std: float | None = Field(description="expected root mean square error, months")
    low: float | None = Field(description="lower end of the 90 % interval, months")
    high: float | None = Field(description="upper end of the 90 % interval, months")
    difference: float | None = Field(description="bone age minus chronological age, months")
    sd_score: float | None = Field(description="the difference in standard deviations of healthy children")
    conclusion: str | None = Field(description="delayed, normal, advanced or cannot be decided")


class Result(Figures):
    """The result of one image, in the form of `boneage predict --format json`."""

    file: str = Field(description='always "the image": names of uploaded files are not repeated')
    error: str | None
    refused: bool = Field(description="whether the checks of the image are the reason of the error")
    sex: str | None = Field(description="F, M or unknown")
    sex_from: str | None = Field(description="request or header")
    by_sex: dict[str, Figures] | None = Field(description="both readings, as F and M, where the sex is unknown")
    age: float | None = Field(description="chronological age, months")
    age_from: str | None = Field(description="request or header")
    sd_table: str | None = Field(description="source of the standard deviations")
    heatmap: str | None = Field(description="PNG in base64: the radiograph, and beside it the same under the heat map")
    dicom_report: str | None = Field(description="always null")
    dicom_capture: str | None = Field(description="always null")
    regions: dict[str, Any] | None = Field(description="always null")
    warnings: list[str]
    notes: list[str]
    provenance: Provenance


class Information(BaseModel):
    """The weights, their measured figures and the environment."""

    provenance: Provenance
    figures: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
