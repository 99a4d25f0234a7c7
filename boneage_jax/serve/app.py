"""The application: its paths, the token, and the two pages."""

import hmac
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader
from starlette.exceptions import HTTPException as AnyHTTPException

from boneage_jax.predict.prediction import NOTICE
from boneage_jax.serve import schemas, uploads
from boneage_jax.serve.guard import Guard
from boneage_jax.serve.reading import FailedUploadError, Reading
from boneage_jax.version import __version__

_FOLDER = Path(__file__).parent
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": schemas.Error, "description": "The form, the sex or the age is not valid, or there is no heat map."},
    408: {"model": schemas.Error, "description": "The upload took too long."},
    413: {"model": schemas.Error, "description": "The upload is larger than 64 MiB."},
    415: {"model": schemas.Error, "description": "No form, or an image of unknown format."},
    422: {"model": schemas.Result, "description": "The image cannot be read, or the checks refuse it."},
    503: {"model": schemas.Error, "description": "The queue is full; Retry-After gives the seconds to wait."},
}


def make(reading: Reading, token: str | None = None) -> Guard:
    """Makes the application.

    Args:
        reading: reads the uploads; the caller closes it when the application has ended.
        token: required by /predict and /info as "Authorization: Bearer TOKEN"; None to require no token.

    Returns:
        The ASGI application.
    """
    app = FastAPI(
        title="boneage_jax",
        version=__version__,
        description=f"Bone age from hand radiographs. {NOTICE}",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(FailedUploadError, _failed)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"))
    _add_readings(app, reading, token)
    _add_pages(app, protected=token is not None, has_heatmaps=reading.has_heatmaps)
    return Guard(app)


def _add_readings(app: FastAPI, reading: Reading, token: str | None) -> None:
    guarded: dict[str, Any] = {}
    unauthorised: dict[int | str, dict[str, Any]] = {}
    if token is not None:
        guarded = {"dependencies": [Depends(_bearer(token))]}
        unauthorised = {401: {"model": schemas.Error, "description": "The token is missing or wrong."}}
    form = {"required": True, "content": {"multipart/form-data": {"schema": uploads.SCHEMA}}}

    @app.post(
        "/predict",
        summary="Read the bone age from a radiograph",
        response_model=schemas.Result,
        responses=_ERRORS | unauthorised,
        openapi_extra={"requestBody": form},
        **guarded,
    )
    async def predict(
        request: Request, heatmap: Annotated[bool, Query(description="whether to add the heat map")] = False
    ) -> JSONResponse:
        with reading.admitted():
            return JSONResponse(await reading.read(await uploads.read(request, heatmap=heatmap)))

    @app.get("/health", summary="Whether the service answers", response_model=schemas.Health)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/info",
        summary="Weights, measured accuracy and environment",
        response_model=schemas.Information,
        responses=unauthorised,
        **guarded,
    )
    async def info() -> dict[str, Any]:
        return reading.describe()


def _add_pages(app: FastAPI, *, protected: bool, has_heatmaps: bool) -> None:
    templates = Environment(loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True)
    page = templates.get_template("page.html").render(
        notice=NOTICE, protected=protected, has_heatmaps=has_heatmaps, version=__version__
    )

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        api = app.openapi()
        return HTMLResponse(templates.get_template("docs.html").render(api=api, form=uploads.SCHEMA))


def _bearer(token: str) -> Any:
    """The dependency that compares tokens in constant time."""
    expected = token.encode()

    async def check(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), expected):
            raise HTTPException(401, "The token is missing or wrong.", {"WWW-Authenticate": "Bearer"})

    return check


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FailedUploadError)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.body, error.status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _broken(_: Request, error: Exception) -> JSONResponse:
    """The response to an unexpected error; the error's message is left out because it may quote a header."""
    return JSONResponse({"error": "The service failed to answer."}, 500)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The response to an invalid parameter, without the values that FastAPI's default response repeats."""
    return JSONResponse({"error": "The parameter heatmap is not valid; expected 1 or 0."}, 400)
