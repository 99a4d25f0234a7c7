"""The service with random weights: its responses, and the data that it must not repeat, store or log."""

import asyncio
import base64
import contextlib
import logging
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Input
from boneage_jax.predict import heatmap
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.serve import guard, reading, schemas, uploads
from boneage_jax.serve.batching import Batcher
from tests import pictures
from tests.data import dicom_files
from tests.predict import random_weights, test_region_readings
from tests.predict.random_weights import CALIBRATION, hand
from tests.serve import services
from tests.serve.services import TOKEN, png

SECRET = "Mustermann^Erika"


@pytest.fixture(scope="module")
def client():
    with services.client() as found:
        yield found


def post(client, image, query="", name="hand.png", **fields):
    return client.post(f"/predict{query}", files={"image": (name, image)}, data=fields)


def test_an_image_gets_the_reading_of_the_predictor(client):
    answer = post(client, png(hand(1)), sex="F", age="8")
    assert answer.status_code == 200
    expected = random_weights.predictor(calibration=CALIBRATION).predict(hand(1), sex="F")
    found = answer.json()
    assert found["months"] == pytest.approx(expected.months, abs=1e-3)
    assert [found["low"], found["high"]] == pytest.approx(expected.interval, abs=1e-3)
    assert (found["sex"], found["sex_from"], found["age"], found["age_from"]) == ("F", "request", 96, "request")
    assert found["difference"] == pytest.approx(found["months"] - 96, abs=1e-3)
    assert found["provenance"]["notice"] == "Research use only. Not a medical device."
    assert found["heatmap"] is None


def test_sex_comes_from_the_header_and_unknown_sex_gives_both_readings(client):
    found = post(client, dicom_files.make(hand(1), PatientSex="M")).json()
    assert (found["sex"], found["sex_from"]) == ("M", "header")
    both = post(client, png(hand(1)), sex="unknown").json()
    assert (both["months"], both["sex"]) == (None, "unknown")
    assert both["by_sex"]["M"]["months"] == pytest.approx(found["months"], abs=0.01)


def test_responses_do_not_repeat_header_text(client):
    words = {"BodyPartExamined": "DOE JANE FOOT", "ViewPosition": "DOE LATERAL", "StudyDescription": "DOE"}
    words |= {"WindowCenter": "128", "WindowWidth": "256", "VOILUTFunction": "DOE^JANE"}
    answer = post(client, dicom_files.make(hand(1), PatientName="Doe^Jane", PatientSex="F", **words), name="Doe.dcm")
    assert answer.status_code == 200
    warnings = " ".join(answer.json()["warnings"])
    assert "this is another body part, not a hand" in warnings
    assert "The window in the file's header was not used" in warnings
    assert "a lateral or oblique view; a view from the front is expected" in warnings
    assert "DOE" not in answer.text.upper()


def test_the_heat_map_is_a_png_with_the_radiograph_beside_it(client):
    data = base64.b64decode(post(client, png(hand(1)), "?heatmap=1", sex="F").json()["heatmap"])
    picture = pictures.decode(data)
    assert picture.shape == (80, 160, 3)
    assert np.ptp(picture[:, :80], axis=2).max() == 0  # the left half is greyscale
    assert np.ptp(picture[:, 80:], axis=2).max() > 30


@pytest.mark.parametrize(
    ("image", "fields", "status", "sentence"),
    [
        (png(hand(1)), {"sex": SECRET}, 400, "sex is not valid"),
        (png(hand(1)), {"sex": "F", "age": SECRET}, 400, "age is not valid"),
        (png(hand(1)), {"sex": "F", "age": "nan"}, 400, "age is not valid"),
        (png(hand(1)), {"sex": "F", "age": "-1"}, 400, "age is not valid"),
        (png(hand(1)), {}, 400, "add the field sex"),
        (png(hand(1)), {"sex": "F", SECRET: "x"}, 400, "Expected the fields"),
        (b"", {"sex": "F"}, 400, "empty"),
        (b"%PDF-1.7" + SECRET.encode(), {"sex": "F"}, 415, "format is unknown"),
        (png(hand(1))[:-200], {"sex": "F"}, 422, "truncated or damaged"),
        (dicom_files.make(hand(1), PatientName=SECRET)[:-5000], {"sex": "F"}, 422, "DICOM file cannot be read"),
    ],
)
def test_invalid_requests_are_explained_without_repeating_input(client, image, fields, status, sentence):
    answer = post(client, image, name=f"{SECRET}.png", **fields)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert SECRET not in answer.text


def test_results_contain_neither_file_names_nor_patient_names(client):
    answer = post(client, dicom_files.make(hand(1), PatientName=SECRET, PatientID=SECRET), name=SECRET, sex="F")
    assert answer.status_code == 200
    assert SECRET not in answer.text + str(answer.headers)
    assert answer.json()["file"] == "the image"


def test_malformed_requests_are_rejected(client):
    assert client.post("/predict", content=png(hand(1))).status_code == 415
    assert client.post("/predict", data={"sex": "F"}).status_code == 415
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=b"--y\r\n", headers=broken).status_code == 400
    assert client.post("/predict", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    two = [("image", png(hand(1))), ("image", png(hand(2)))]
    assert client.post("/predict", files=two, data={"sex": "F"}).status_code == 400
    assert post(client, png(hand(1)), f"?heatmap={SECRET}", sex="F").json() == {
        "error": "The parameter heatmap is not valid; expected 1 or 0."
    }


def test_an_image_that_fails_the_checks_is_refused_with_the_reason():
    with services.client(Predictor(random_weights.checked())) as client:
        answer = post(client, png(random_weights.grainy(0.0)), sex="F")
    assert answer.status_code == 422
    found = answer.json()
    assert found["refused"]
    assert found["warnings"]
    assert found["warnings"][0] in found["error"]
    assert found["months"] is None


def test_uploads_above_the_limit_are_rejected_with_or_without_a_length(client, monkeypatch):
    monkeypatch.setattr(client.app, "_limit", 20_000)
    image = png(np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8))
    assert post(client, image, sex="F").status_code == 413

    def chunks():
        yield b"--x\r\n" + b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(50):
            yield bytes(1000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=chunks(), headers=headers).status_code == 413


def test_a_full_queue_returns_503_and_recovers(monkeypatch):
    begun, go = threading.Event(), threading.Event()
    prepare = reading.Reading._prepare

    def waiting(self, upload):
        begun.set()
        assert go.wait(30)
        return prepare(self, upload)

    monkeypatch.setattr(reading.Reading, "_prepare", waiting)
    with services.client(queue=1) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(post, client, png(hand(1)), sex="F")
        assert begun.wait(30)
        second = post(client, png(hand(1)), sex="F")
        go.set()
        assert first.result().status_code == 200
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        assert post(client, png(hand(1)), sex="F").status_code == 200


def test_a_token_is_required_for_predictions_and_information():
    with services.client(token=TOKEN) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            answer = client.get("/info", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert client.post("/predict", headers=headers).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/info", headers=right).status_code == 200
        assert client.post("/predict", headers=right).status_code == 415
        assert client.get("/health").json() == {"status": "ok"}
        assert TOKEN not in client.get("/").text


def test_the_log_has_only_method_status_and_duration(client, caplog):
    caplog.set_level(logging.DEBUG)
    post(client, dicom_files.make(hand(1), PatientName=SECRET), name=SECRET, sex="F")
    client.get(f"/{SECRET}")
    client.request("BREW", "/")
    lines = [one.getMessage().split() for one in caplog.records if one.name == "boneage_jax.serve"]
    assert [line[:2] for line in lines] == [["POST", "200"], ["GET", "404"], ["OTHER", "405"]]
    assert all(len(line) == 4 and line[3] == "ms" for line in lines)
    assert SECRET not in caplog.text.replace(f"/{SECRET} ", "")  # the test client itself logs the URL


def test_an_internal_error_is_answered_without_its_message(client, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(reading.Reading, "_prepare", broken)
    answer = post(client, png(hand(1)), sex="F")
    assert (answer.status_code, answer.json()) == (500, {"error": "The service failed to answer."})
    assert SECRET not in caplog.text


def test_a_large_upload_is_not_written_to_disk(client, monkeypatch):
    def rolled(*_):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled)
    image = png(np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8))
    assert len(image) > 2**20
    assert post(client, image, sex="F").status_code == 200


def test_responses_allow_and_reference_no_other_host(client):
    for path in ("/", "/docs", "/static/page.js", "/static/page.css", "/health", "/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "//" not in answer.text.replace("http://127.0.0.1:8080/predict", "").replace("// ", "")
        assert answer.headers["cache-control"] == "no-store"
    assert "Research use only" in client.get("/").text


def test_the_openapi_schema_matches_the_responses(client):
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/predict", "/health", "/info"}
    assert set(api["paths"]["/predict"]["post"]["responses"]) == {
        *("200", "400", "408", "413", "415", "422", "503"),
    }
    found = post(client, png(hand(1)), sex="F").json()
    assert schemas.Result.model_fields.keys() == found.keys()
    assert schemas.Provenance.model_fields.keys() == found["provenance"].keys()
    assert schemas.Information.model_fields.keys() == client.get("/info").json().keys()
    assert api["info"]["version"] in client.get("/docs").text


def test_a_slow_client_gets_408(monkeypatch):
    monkeypatch.setattr(uploads, "_SECONDS", 0.05)
    assert uploads.LIMIT == 64 * 2**20

    async def slow(self):
        await asyncio.sleep(5)

    monkeypatch.setattr(uploads._InMemory, "parse", slow)
    with services.client() as client:
        assert post(client, png(hand(1)), sex="F").status_code == 408


def test_weights_with_chronological_age_input_require_it():
    predictor = random_weights.predictor(inputs=random_weights.AGE)
    with services.client(predictor) as client:
        assert post(client, png(hand(1)), sex="F").status_code == 400
        found = post(client, png(hand(1)), sex="F", age="9.5").json()
        of_header = post(client, dicom_files.make(hand(1), PatientAge="114M"), sex="F").json()
    expected = predictor.predict(hand(1), sex="F", inputs={"chronological_age": 114.0})
    assert found["months"] == pytest.approx(expected.months, abs=1e-3)
    assert of_header["months"] == pytest.approx(expected.months, abs=1e-3)
    assert (of_header["age"], of_header["age_from"]) == (114.0, "header")


def test_concurrent_images_are_batched():
    predictor = random_weights.predictor(calibration=CALIBRATION)
    items = [(hand(number), "FM"[number % 2]) for number in range(12)]
    prepared = [predictor.prepare(Item(*item)) for item in items]
    sizes = []

    def predict(prepared, size):
        sizes.append((len(prepared), size))
        return predictor.predict_prepared(prepared, size)

    batcher = Batcher(predict, wait=0.5)
    futures = [batcher.submit(one) for one in prepared]
    found = [future.result(60).months for future in futures]
    batcher.close()
    assert sizes == [(8, 8), (4, 1)]
    assert found == pytest.approx([predictor.predict(*item[:1], sex=item[1]).months for item in items], abs=0.01)


def test_a_network_error_reaches_every_caller_in_the_batch():
    prepared = random_weights.predictor().prepare(Item(hand(1), "F"))

    def fail(*_):
        raise MemoryError

    batcher = Batcher(fail, wait=0.2)
    futures = [batcher.submit(prepared) for _ in range(2)]
    assert all(isinstance(future.exception(60), MemoryError) for future in futures)
    batcher.close()


def test_weights_without_heat_maps_read_images_and_refuse_heat_maps():
    image = png(test_region_readings.hand())
    with services.client(test_region_readings.predictor()) as client:
        assert post(client, image, sex="M").json()["heatmap"] is None
        answer = post(client, image, "?heatmap=1", sex="M")
        assert answer.status_code == 400
        assert "no heat map: leave out the parameter heatmap" in answer.json()["error"]
        assert 'id="heatmap"' not in client.get("/").text


def test_the_page_offers_the_heat_map(client):
    assert 'id="heatmap"' in client.get("/").text


def test_warm_up_needs_no_heat_map(caplog):
    with contextlib.closing(reading.Reading(test_region_readings.predictor())) as warm:
        warm.warm_up()
    assert caplog.records == []


def test_a_failed_warm_up_of_the_heat_map_is_logged(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(heatmap.Maps, "find", broken)
    with contextlib.closing(reading.Reading(random_weights.predictor(calibration=CALIBRATION))) as warm:
        warm.warm_up()
        warm._drawing.shutdown()  # waits for the heat map, which `close` may cancel
    assert "the first heat map failed: RuntimeError at" in caplog.text


def test_the_log_locates_an_internal_error_without_its_message(client, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(reading.Reading, "_prepare", broken)
    assert post(client, png(hand(1)), sex="F").status_code == 500
    line = broken.__code__.co_firstlineno + 1
    assert f"internal error: RuntimeError at {__file__}:{line}" in caplog.text
    assert SECRET not in caplog.text


def test_weights_with_other_inputs_are_rejected():
    race = Input("race", "category", categories=("a", "b"))
    with pytest.raises(BoneAgeError, match="the weights 'tiny' also read race, for which requests have no field"):
        reading.Reading(random_weights.predictor(inputs=(*random_weights.AGE, race)))


async def trickled(app, headers=(), pause=0.02):
    """Sends a form one byte at a time and never ends it; returns the start of the response."""
    parts = iter([b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'])
    found = []

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": next(parts, b"0"), "more_body": True}

    async def send(message):
        found.append(message)

    form = [(b"content-type", b"multipart/form-data; boundary=x"), (b"transfer-encoding", b"chunked"), *headers]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/predict", "query_string": b""}
    async with asyncio.timeout(10):
        await app(scope | {"headers": form}, receive, send)
    return found[0]


def test_a_trickling_client_gets_408_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(uploads, "_SECONDS", 0.3)
    with services.client() as client:
        begun = time.monotonic()
        start = asyncio.run(trickled(client.app))
        assert time.monotonic() - begun < 1.3
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


@pytest.mark.parametrize(("headers", "status"), [((), 401), (((b"content-length", b"%d" % (uploads.LIMIT + 1)),), 413)])
def test_a_trickling_client_gets_its_error_within_the_time_limit(headers, status, monkeypatch):
    monkeypatch.setattr(guard, "_SECONDS", 0.3)
    with services.client(token=TOKEN) as client:
        begun = time.monotonic()
        start = asyncio.run(trickled(client.app, headers))
        assert time.monotonic() - begun < 1.3
    assert start["status"] == status
    assert (b"connection", b"close") in start["headers"]


def test_an_error_after_the_whole_request_keeps_the_connection(client):
    answer = post(client, png(hand(1)), sex=SECRET)
    assert answer.status_code == 400
    assert "connection" not in answer.headers
