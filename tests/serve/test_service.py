"""The service as a subprocess: the documented command, a fuzzer, many concurrent clients, and a browser."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import httpx2
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from boneage_jax.data import phantom
from boneage_jax.released import weights
from tests.data import dicom_files
from tests.predict import random_weights
from tests.predict.random_weights import CALIBRATION, hand
from tests.serve import services

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs" / "serve.md"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, random_weights.weights(calibration=CALIBRATION))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def service(tiny, folder):
    """The address of a running service, and its log file."""
    with services.process(tiny, folder) as found:
        yield found


def test_the_documented_curl_command_gives_the_reading(service, tmp_path):
    (command,) = re.findall(r"^curl -F .*$", DOCS.read_text(), re.MULTILINE)
    cv2.imwrite(str(tmp_path / "hand.png"), hand(1))
    arguments = [one.replace("http://127.0.0.1:8080/", service[0]) for one in shlex.split(command)]
    done = subprocess.run([*arguments, "--silent"], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = random_weights.predictor(calibration=CALIBRATION).predict(hand(1), sex="F")
    assert json.loads(done.stdout)["months"] == pytest.approx(expected.months, abs=0.01)


def test_a_client_with_a_too_large_upload_gets_the_reason(service, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(65 * 2**20))
    for extra in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]):
        command = ["curl", "--silent", "-F", "image=@large.png", *extra, f"{service[0]}predict"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"error": "The upload is larger than 64 MiB."}


def test_a_fuzzer_finds_no_server_errors(service, tmp_path):
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{service[0]}openapi.json", "--no-color"),
        *("--checks=not_a_server_error", "--max-examples=40", "--seed=1", "--phases=examples,coverage,fuzzing"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_200_requests_from_32_clients_match_the_predict_command(service, tiny, tmp_path):
    images = {f"{number}.png": services.png(hand(number)) for number in range(10)}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "boneage_jax", "predict", str(tmp_path), "--sex=F", "--format=json"]
    done = subprocess.run(
        [*command, f"--weights={tiny}"], env=services.environment(tmp_path), capture_output=True, text=True, check=True
    )
    expected = {Path(one["file"]).name: one["months"] for one in json.loads(done.stdout)}

    def ask(name):
        form = {"image": (name, images[name])}
        answer = client.post(f"{service[0]}predict", files=form, data={"sex": "F"})
        return name, answer.status_code, answer.json()["months"]

    with httpx2.Client(timeout=60) as client, ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, sorted(images) * 20))
    assert len(answers) == 200
    for name, status, months in answers:
        assert status == 200
        assert months == pytest.approx(expected[name], abs=0.01)


def test_nothing_is_stored_and_the_log_has_no_names(service, folder):
    form = {"image": ("Mustermann.dcm", dicom_files.make(hand(1), PatientName="Mustermann^Erika"))}
    assert httpx2.post(f"{service[0]}predict", files=form, data={"sex": "F"}, timeout=60).status_code == 200
    assert [path.name for path in folder.iterdir()] == ["serve.log"]
    lines = service[1].read_text().splitlines()
    request = r"\S+ \S+ (GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|OTHER) \d{3} \d+ ms"
    shape = re.compile(rf"serving http.*|WARNING:absl:The CPU kernels are not used.*|{request}")
    assert [line for line in lines if not shape.fullmatch(line)] == []


def test_sigterm_stops_the_service(tiny, tmp_path):
    with services.process(tiny, tmp_path) as (address, log):
        assert httpx2.get(f"{address}health").json() == {"status": "ok"}
        form: dict[str, Any] = {"files": {"image": ("a", services.png(hand(1)))}, "data": {"sex": "F"}, "timeout": 120}
        assert httpx2.post(f"{address}predict?heatmap=1", **form).status_code == 200  # everything is compiled now
        start = time.monotonic()
    assert time.monotonic() - start < 10
    assert "Traceback" not in log.read_text()


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "window-size=1100,900"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "saved")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def test_the_page_reads_a_png_and_a_dicom_file_in_a_browser(service, browser, tmp_path):
    (tmp_path / "girl.png").write_bytes(services.png(phantom.render(96, 0, size=512, seed=3).image))
    (tmp_path / "boy.dcm").write_bytes(dicom_files.make(phantom.render(130, 1, size=512, seed=4).image, PatientSex="M"))
    browser.get(service[0])
    browser.find_element(By.ID, "files").send_keys(f"{tmp_path / 'girl.png'}\n{tmp_path / 'boy.dcm'}")
    first = browser.find_elements(By.CSS_SELECTOR, ".child")[0]
    Select(first.find_element(By.CSS_SELECTOR, ".sex")).select_by_value("F")
    first.find_element(By.CSS_SELECTOR, ".age").send_keys("8.5")
    browser.find_element(By.ID, "read").click()
    WebDriverWait(browser, 90).until(lambda page: page.find_element(By.ID, "save").is_enabled())
    girl, boy = browser.find_elements(By.CSS_SELECTOR, "#results article")

    predictor = random_weights.predictor(calibration=CALIBRATION)
    for article, name, sex in ((girl, "girl.png", "F"), (boy, "boy.dcm", "M")):
        expected = predictor.predict(tmp_path / name, sex=sex)
        assert expected.months is not None
        assert expected.interval is not None
        assert article.find_element(By.TAG_NAME, "h2").text == name
        assert f"{expected.months:.1f} months" in article.text
        assert f"{expected.interval[0]:.1f} to {expected.interval[1]:.1f}" in article.text
        scale = article.find_element(By.CSS_SELECTOR, ".scale")
        mark, axis = (scale.find_element(By.CSS_SELECTOR, one).rect for one in (".mark", ".axis"))
        place = (mark["x"] + mark["width"] / 2 - axis["x"]) / axis["width"]
        assert place == pytest.approx(expected.months / 240, abs=0.01)
        assert article.find_element(By.TAG_NAME, "figure").is_displayed()
        assert "Research use only" in article.text
    assert "Age 8.5 years" in girl.text

    slider = girl.find_element(By.CSS_SELECTOR, "input[type=range]")
    for _ in range(20):
        slider.send_keys("\ue014")  # right arrow: the slider works by keyboard
    over = girl.find_element(By.CSS_SELECTOR, ".over")
    assert over.value_of_css_property("clip-path") == "inset(0px 0px 0px 70%)"
    browser.find_element(By.ID, "save").send_keys("\n")
    saved = tmp_path / "saved" / "bone-age.json"
    WebDriverWait(browser, 20).until(lambda _: saved.exists())
    assert [one["file"] for one in json.loads(saved.read_text())] == ["girl.png", "boy.dcm"]
    assert [line for line in browser.get_log("browser") if line["level"] != "INFO"] == []


def test_the_page_fits_a_phone(service, browser):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    for path in ("", "docs"):
        browser.get(f"{service[0]}{path}")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360


def choose(browser, folder, *names):
    for name in names:
        (folder / name).write_bytes(services.png(hand(1)))
    browser.find_element(By.ID, "files").send_keys("\n".join(str(folder / name) for name in names))


# Replaces each response of the service; while the radiograph with this number is read, a row is removed or added.
ACTS = """
const acts = arguments[0];
let number = 0;
window.fetch = async () => {
  const act = acts[++number];
  if (act === "add") add([new File(["x"], "late.png")]);
  else if (act) document.querySelector(`.child:nth-child(${act}) .remove`).click();
  if (!document.getElementById("read").disabled) throw new Error("a second run can start");
  return { json: async () => ({ error: `answer ${number}` }) };
};
"""


@pytest.mark.parametrize(
    ("acts", "shown"),
    [
        ({1: 1}, ["a.png: answer 1", "b.png: answer 2", "c.png: answer 3"]),
        ({1: "add"}, ["a.png: answer 1", "b.png: answer 2", "c.png: answer 3"]),
        ({1: 2}, ["a.png: answer 1", "c.png: answer 2"]),
    ],
)
def test_rows_can_be_added_and_removed_during_a_run(acts, shown, service, browser, tmp_path):
    browser.get(service[0])
    choose(browser, tmp_path, "a.png", "b.png", "c.png")
    browser.execute_script(ACTS, acts)
    browser.find_element(By.ID, "read").click()
    WebDriverWait(browser, 20).until(lambda page: page.find_element(By.ID, "save").is_enabled())
    articles = browser.find_elements(By.CSS_SELECTOR, "#results article")
    found = [": ".join(one.find_element(By.CSS_SELECTOR, part).text for part in ("h2", "li")) for one in articles]
    assert found == shown
    assert browser.find_element(By.ID, "read").is_enabled()


def test_the_controls_of_each_file_have_names_of_their_own(service, browser, tmp_path):
    browser.get(service[0])
    choose(browser, tmp_path, "a.png", "b.png")
    for row, name in zip(browser.find_elements(By.CSS_SELECTOR, ".child"), ("a.png", "b.png"), strict=True):
        names = [row.find_element(By.CSS_SELECTOR, f".{kind}").accessible_name for kind in ("sex", "age", "remove")]
        assert names == [f"Sex, {name}", f"Age in years, {name}", f"Remove {name}"]
