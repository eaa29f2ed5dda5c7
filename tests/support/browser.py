"""Chromium without a screen, to load pages as a person's browser does."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")


def axe_core() -> Path | None:
    """Return axe-core's script where npm has put it, None where it is absent."""
    temporary = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108  # where .ci/run puts it
    for folder in (Path.cwd(), *(path / "bulkbind-axe" for path in temporary), Path("/usr/lib")):
        found = folder / "node_modules/axe-core/axe.min.js"
        if found.exists():
            return found
    return None


@contextmanager
def chromium():
    """Yield a browser; it is gone at the end."""
    from selenium import webdriver  # noqa: PLC0415  # only where there is a browser

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What tests do with a page."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def load(self, path: Path, *, width: int = 1280, theme: str = "light") -> None:
        """Load a file in a window of a width, for a person with a theme."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        self.media(theme)
        self.driver.get(path.resolve().as_uri())

    def media(self, theme: str, kind: str = "") -> None:
        """Let the page believe in a theme, and in paper (`print`)."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": kind, "features": [{"name": "prefers-color-scheme", "value": theme}]},
        )

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def complaints(self) -> list[str]:
        """Return what stands on the console."""
        return [str(entry["message"]) for entry in self._log("browser")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.driver.get_log(kind)
        return entries

    def sheets(self) -> int:
        """Return how many pages of A4 the page takes in print."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        printed = self.driver.execute_cdp_cmd("Page.printToPDF", size)
        return len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(printed["data"])))

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"}
        )
        path.write_bytes(base64.b64decode(shot["data"]))
