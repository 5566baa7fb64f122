"""A real browser for tests: Chromium without a window, which writes down what goes wrong and what it asks for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def programs() -> tuple[str, str] | None:
    """Where browser and driver are, of one version, as a system's packages bring them."""
    browser = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return None if browser is None or driver is None else (browser, driver)


class Browser:
    """One tab. `driver` is Selenium's."""

    def __init__(self, browser: str, driver: str):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1200,900"):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # root has none
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(driver)
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page: Path) -> None:
        """Open a file, what was written down before forgotten."""
        self.logged("browser")
        self.logged("performance")
        self.driver.get(page.absolute().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What JavaScript returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def logged(self, kind: str) -> list[Any]:
        """What it wrote down since it was asked last."""
        found: list[Any] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return found

    def asked_for(self) -> list[str]:
        """Addresses that were asked for, whatever came of it."""
        events = [json.loads(entry["message"])["message"] for entry in self.logged("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def emulate(self, *, width: int, scheme: str = "light") -> None:
        """A window of another width, or a reader who likes dark pages."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser of this session."""
    pytest.importorskip("selenium", reason="no driver for a browser is installed")
    found = programs()
    if found is None:
        pytest.skip("no Chromium is installed here: `apt-get install chromium chromium-driver` brings it")
    browser = Browser(*found)
    try:
        yield browser
    finally:
        browser.driver.quit()
