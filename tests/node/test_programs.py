"""The node with third-party programs: dcmtk's echoscu, storescu and storescp, and Orthanc."""

import random
import threading
import time
from collections import Counter

import pydicom
import pytest

from boneage_jax.predict import predictor
from boneage_jax.released import weights as released
from tests.dicom_results import programs, radiographs
from tests.node.nodes import PATIENCE, Node, Orthanc, Store, free_port, wait_for
from tests.predict import random_weights
from tests.predict.random_weights import CALIBRATION

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def installed():
    programs.need("echoscu", "storescu", "storescp", "dciodvfy", "Orthanc")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    released.write(path, random_weights.weights(calibration=CALIBRATION))
    return path


def write(folder, count, kind="CR", **elements):
    """Writes files of phantoms; returns their paths and SOP Instance UIDs."""
    folder.mkdir(exist_ok=True)
    files, uids = [], []
    for number in range(count):
        made = radiographs.dataset(kind, radiographs.hand(number, size=128), **elements)
        files.append(folder / f"{made.SOPInstanceUID}.dcm")
        files[-1].write_bytes(radiographs.written(made))
        uids.append(made.SOPInstanceUID)
    return files, uids


def send(port, *files, caller="MODALITY", called="BONEAGE"):
    """Whether storescu was acknowledged for all files."""
    titles = ("-aet", caller, "-aec", called)
    return programs.run("storescu", "-R", *titles, "127.0.0.1", port, *files, timeout=PATIENCE)[0] == 0


def sources(files):
    """Counts the reports and captures of each source image among the files."""
    found: Counter[tuple[str, str]] = Counter()
    for path in files:
        made = pydicom.dcmread(path)
        if made.Modality == "SR":
            series = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
            found["SR", series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID] += 1
        else:
            found["SC", made.SourceImageSequence[0].ReferencedSOPInstanceUID] += 1
    return found


def one_of_each(uids):
    return {(kind, uid): 1 for kind in ("SR", "SC") for uid in uids}


def test_images_are_answered_and_other_objects_are_ignored(tmp_path, weights):
    port, archive = free_port(), free_port()
    flags = ("--allow=MODALITY", "--allow=ARCHIVE", f"--send-to=ARCHIVE@127.0.0.1:{archive}")
    with Store(tmp_path / "archive", archive) as store, Node(tmp_path / "node", port, weights, *flags) as node:
        node.wait()
        for caller, status in (("MODALITY", 0), ("INTRUDER", 1)):
            echo = programs.run("echoscu", "-aet", caller, "-aec", "BONEAGE", "127.0.0.1", port)
            assert echo[0] == status, echo
        images = [write(tmp_path / kind, 1, kind) for kind in ("CR", "DX", "SC")]
        others = [write(tmp_path / "chest", 1, BodyPartExamined="CHEST"), write(tmp_path / "sex", 1, PatientSex="")]
        assert send(port, *(file for files, _ in [*others, *images] for file in files))
        assert not send(port, images[0][0][0], caller="INTRUDER")
        wait_for(lambda: node.log.count(": results sent") == 3)
        uids = [uid for _, found in images for uid in found]
        assert sources(store.files()) == one_of_each(uids)
        for path in store.files():
            assert "Error" not in programs.run("dciodvfy", path)[1]
        assert send(port, *store.files(), caller="ARCHIVE")  # the node's own results
        assert send(port, images[0][0][0])  # an image that has already been answered
        wait_for(lambda: "was received before" in node.log)
        assert node.end() == 0
        assert len(store.files()) == 6
        assert node.log.count("is ignored: it is a result of this package") == 3
        assert node.log.count("is ignored: it is not a CR, DX or Secondary Capture image") == 3
        assert node.log.count("is ignored: its body part is not a hand") == 1
        assert node.log.count("is refused: its header does not give the sex") == 1
        assert "an association from INTRUDER is rejected" in node.log
        assert not any(word in node.log for word in ("Doe", "P4711", "20100310", *uids))


def test_the_report_has_the_bone_age_of_the_predictor(tmp_path, weights):
    port, archive = free_port(), free_port()
    with (
        Store(tmp_path / "archive", archive) as store,
        Node(tmp_path / "node", port, weights, f"--send-to=ARCHIVE@127.0.0.1:{archive}") as node,
    ):
        node.wait()
        (file,), _ = write(tmp_path / "images", 1)
        assert send(port, file)
        wait_for(lambda: ": results sent" in node.log)
        (report,) = [path for path in store.files() if pydicom.dcmread(path).Modality == "SR"]
        expected = predictor.load(weights).predict(file, sex=None).months
        assert radiographs.bone_age(report.read_bytes()) == pytest.approx(expected, abs=0.01)


def test_results_wait_for_an_unreachable_destination(tmp_path, weights):
    port, archive = free_port(), free_port()
    files, uids = write(tmp_path / "images", 3)
    with Node(tmp_path / "node", port, weights, f"--send-to=ARCHIVE@127.0.0.1:{archive}") as node:
        assert send(node.wait().port, *files)
        wait_for(lambda: node.log.count("is unavailable") >= 2)
        with Store(tmp_path / "archive", archive) as store:
            wait_for(lambda: node.log.count(": results sent") == 3)
            assert sources(store.files()) == one_of_each(uids)


@pytest.mark.parametrize("way", ["--send-to", "--dicomweb"])
def test_results_return_to_orthanc_without_a_routing_loop(way, tmp_path, weights):
    port = free_port()
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        where = {
            "--send-to": f"ORTHANC@127.0.0.1:{orthanc.dicom_port}",
            "--dicomweb": f"http://127.0.0.1:{orthanc.http_port}/dicom-web",
        }[way]
        with Node(tmp_path / "node", port, weights, "--allow=ORTHANC", f"{way}={where}") as node:
            node.wait()
            files, uids = write(tmp_path / "images", 2)
            assert send(orthanc.dicom_port, *files, called="ORTHANC")
            wait_for(lambda: node.log.count(": results sent") == 2)
            time.sleep(3)  # time for a routing loop to start
            stored = orthanc.tags()
            assert Counter(one["Modality"] for one in stored) == {"CR": 2, "SR": 2, "OT": 2}
            for uid in uids:
                (image,) = [one for one in stored if one["SOPInstanceUID"] == uid]
                same = [one for one in stored if one["StudyInstanceUID"] == image["StudyInstanceUID"]]
                assert len(same) == 3
                assert {one["PatientID"] for one in same} == {"P4711"}
            results = [one for one in stored if one["Modality"] != "CR"]
            for number, one in enumerate(results):
                path = tmp_path / f"{number}.dcm"
                path.write_bytes(orthanc.file(one["id"]))
                assert "Error" not in programs.run("dciodvfy", path)[1]
            assert len(orthanc.get("/studies")) == 2
            assert node.log.count("accepted") == 2


def test_killing_the_node_neither_loses_nor_duplicates_results(tmp_path, weights):
    port, archive = free_port(), free_port()
    files, uids = write(tmp_path / "images", 40)
    rng = random.Random(0)
    folder, flags = tmp_path / "node", (f"--send-to=ARCHIVE@127.0.0.1:{archive}",)

    def send_all():
        for file in files:
            while not send(port, file):
                time.sleep(0.2)

    modality = threading.Thread(target=send_all, daemon=True)  # a failure must not leave it running
    with Store(tmp_path / "archive", archive) as store:
        modality.start()
        for number in range(20):
            with Node(folder, port, weights, *flags) as node:
                if number % 2:  # half of the kills come during readings and transfers, most others during startup
                    # Without a result in between, a slow network could be killed five times while reading one image.
                    store.wait(min(len(store.files()) + 1, 80))
                time.sleep(rng.uniform(0, 0.5 if number % 2 else 3))
                node.kill()
        with Node(folder, port, weights, *flags) as node:
            node.wait()
            modality.join()
            store.wait(80)
            assert node.end() == 0
        assert sources(store.files()) == one_of_each(uids)


def test_200_consecutive_images_are_each_answered_once(tmp_path, weights):
    port, archive = free_port(), free_port()
    files, uids = write(tmp_path / "images", 200)
    with (
        Store(tmp_path / "archive", archive) as store,
        Node(tmp_path / "node", port, weights, f"--send-to=ARCHIVE@127.0.0.1:{archive}") as node,
    ):
        node.wait()
        start = time.perf_counter()
        assert send(port, *files)
        received = time.perf_counter() - start
        store.wait(400)
        print(f"200 images: received in {received:.1f} s, answered in {time.perf_counter() - start:.1f} s")
        assert node.end() == 0  # the last file is complete
        assert sources(store.files()) == one_of_each(uids)
