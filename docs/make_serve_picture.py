"""Make docs/serve.png, the page with a reading in Debian's Chromium: `python docs/make_serve_picture.py`.

Given the name of a folder, it writes the picture there, with dark and phone versions beside it for inspection.

Needs `pip install -e ".[serve,test]"` and `apt-get install chromium chromium-driver`.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from boneage_jax.data import phantom

WIDTH, HEIGHT = 1000, 1000


def photograph(address: str, image: Path, target: Path, *, width: int = WIDTH, dark: bool = False) -> None:
    """Reads an image on the page as a girl of 8.5 years, and writes a screenshot."""
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        browser.get(address)
        browser.find_element(By.ID, "files").send_keys(str(image))
        Select(browser.find_element(By.CSS_SELECTOR, ".child .sex")).select_by_value("F")
        browser.find_element(By.CSS_SELECTOR, ".child .age").send_keys("8.5")
        browser.find_element(By.ID, "read").click()
        WebDriverWait(browser, 300).until(lambda page: page.find_element(By.ID, "save").is_enabled())
        browser.set_script_timeout(10)
        browser.execute_async_script("document.querySelector('.plain').decode().then(arguments[0])")
        end = browser.execute_script("return document.body.getBoundingClientRect().bottom + scrollY")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | {"height": int(end)})
        browser.save_screenshot(str(target))
    finally:
        browser.quit()


def main(folder: Path, *, variants: bool = False) -> None:
    """Writes serve.png into the folder, and with `variants` serve-dark.png and serve-phone.png."""
    with tempfile.TemporaryDirectory() as work:
        image = Path(work, "hand.png")
        cv2.imwrite(str(image), phantom.render(100, 0, size=1024, seed=7).image)
        command = [sys.executable, "-m", "boneage_jax", "serve", "--port=0"]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert running.stderr is not None
            address = next(found[1] for line in running.stderr if (found := re.search(r"serving (\S+)", line)))
            photograph(address, image, folder / "serve.png")
            if variants:
                photograph(address, image, folder / "serve-dark.png", dark=True)
                photograph(address, image, folder / "serve-phone.png", width=390)
        finally:
            running.terminate()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), variants=True)
    else:
        main(Path(__file__).parent)
