"""Compares `boneage serve` with the bare predictor: images per second and request latency.

pip install -e ".[serve]"
python -m benchmarks.service [--images N] [--clients N] [--rounds N] [--out benchmarks/results/service.json]

Both read the same phantoms of 1,024 pixels as PNG files, in turns: the predictor from memory, in batches of 8 in this
process; the service in another process, from N clients at once. The goal is 80 % of the predictor's rate.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

import boneage_jax
from benchmarks import compare, record
from boneage_jax.data import phantom
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import Predictor
from boneage_jax.released.weights import most_accurate

SIZE = 1024
_BOUNDARY = "benchmark-of-the-service"


def pictures(count: int) -> list[bytes]:
    """Phantoms of different ages as PNG."""
    ages = np.linspace(36, 204, count)
    images = [phantom.render(float(age), place % 2, size=SIZE, seed=place).image for place, age in enumerate(ages)]
    return [cv2.imencode(".png", image)[1].tobytes() for image in images]


@contextmanager
def service(weights: str) -> Iterator[int]:
    """Starts the service and yields its port; it is ended with the block, even after an error."""
    command = [sys.executable, "-m", "boneage_jax", "serve", "--port=0", f"--weights={weights}"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    log = ""
    try:
        for line in running.stderr:
            log += line
            if ready := re.search(r"serving http://[^:]+:(\d+)/", line):
                break
        else:
            raise SystemExit(f"the service did not start: {compare.reason(log)}")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(running.stderr.read)  # otherwise the log would fill the pipe
            try:
                yield int(ready[1])
            finally:
                running.terminate()  # ends the log, for which the pool waits
    finally:
        running.kill()


def ask(port: int, image: bytes, query: str = "") -> float:
    """Seconds of one request on its own connection."""
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
    head = part.format("sex", "") + "M\r\n" + part.format("image", '; filename="a"')
    body = head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    connection.request("POST", f"/predict{query}", body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"the service answered {answer.status}: {content[:200]!r}")
    return time.perf_counter() - start


def bare(predictor: Predictor, images: list[bytes]) -> float:
    """Images per second of the predictor."""
    start = time.perf_counter()
    list(predictor.predict_many([Item(image, "M") for image in images], batch_size=8))
    return len(images) / (time.perf_counter() - start)


def served(port: int, images: list[bytes], clients: int) -> tuple[float, list[float]]:
    """Images per second of the service, and the latencies in seconds."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        latencies = list(pool.map(lambda image: ask(port, image), images))
    return len(images) / (time.perf_counter() - start), latencies


def measure(weights: str, images: list[bytes], clients: int, rounds: int) -> dict[str, Any]:
    """Runs all rounds and summarises them."""
    predictor = boneage_jax.load(weights)
    bare(predictor, images[:8])
    found: list[dict[str, Any]] = []
    with service(weights) as port:
        ask(port, images[0], "?heatmap=1")  # waits for the background compilation of the heat maps
        served(port, images[:clients], clients)
        for _ in range(rounds):
            alone = bare(predictor, images)
            rate, latencies = served(port, images, clients)
            single = [ask(port, image) for image in images[:8]]
            found.append({"bare": alone, "service": rate, "latencies": latencies, "single": single})
            print(f"bare {alone:.2f} images/s, service {rate:.2f} images/s", flush=True)
    latencies = [value for one in found for value in one["latencies"]]
    single = [value for one in found for value in one["single"]]
    return {
        "weights": weights,
        "load_average": round(os.getloadavg()[1], 1),  # of five minutes
        "size": SIZE,
        "images": len(images),
        "clients": clients,
        "bare_images_per_second": statistics.median(one["bare"] for one in found),
        "service_images_per_second": statistics.median(one["service"] for one in found),
        "ratios": [one["service"] / one["bare"] for one in found],
        "ratio": statistics.median(one["service"] / one["bare"] for one in found),
        "latency_p50_ms": 1e3 * float(np.percentile(latencies, 50)),
        "latency_p95_ms": 1e3 * float(np.percentile(latencies, 95)),
        "one_client_p50_ms": 1e3 * float(np.percentile(single, 50)),
        "one_client_p95_ms": 1e3 * float(np.percentile(single, 95)),
    }


def main() -> None:
    """Runs the comparison, prints the result and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="phantoms in each round")
    parser.add_argument("--weights", default=most_accurate(), metavar="NAME|FILE", help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="requests at once")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in turns")
    parser.add_argument("--out", type=pathlib.Path, help="where to write the result as JSON")
    flags = parser.parse_args()
    result = measure(flags.weights, pictures(flags.images), flags.clients, flags.rounds)
    print(json.dumps(result, indent=2))
    if flags.out:
        record.write(flags.out, result)


if __name__ == "__main__":
    main()
