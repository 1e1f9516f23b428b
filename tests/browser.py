"""A headless Chromium for pages: offline, with Debian's own driver, and a record of what a page said and asked for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: Where this is set, a browser that is missing is a failure: `.ci/run` sets it, after it has installed one.
REQUIRED = "FEWMATCH_REQUIRE_BROWSER"


def _programs() -> tuple[str, str]:
    """Paths of the browser and its driver; without them the test is skipped, or fails where they are required."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        missing = "the package selenium is not installed"
    else:
        browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if browser and driver:
            return browser, driver
        missing = f"there is no {'chromedriver' if browser else 'chromium'}: apt-get install chromium chromium-driver"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {missing}")
    pytest.skip(missing)


class Browser:
    """A running Chromium; `driver` is Selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file as a window of this size shows it, after forgetting what earlier pages said."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def press(self, *keys: str) -> None:
        """Keys for whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def point_at(self, x: float, y: float, *, click: bool = False) -> None:
        """The mouse, in pixels of the window."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.driver, duration=0)
        chain.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        if click:
            chain.click()
        chain.perform()

    def touch(self, x: float, y: float) -> None:
        """A finger, down and up."""
        for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
            self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def said(self) -> list[str]:
        """What the console got since the page was opened: errors of scripts, violations of the security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """The addresses that the page asked for since it was opened, but for those that its security policy refused."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        refused = {
            event["params"]["requestId"]
            for event in events
            if event["method"] == "Network.loadingFailed" and event["params"].get("blockedReason") == "csp"
        }
        asked = (event["params"] for event in events if event["method"] == "Network.requestWillBeSent")
        return [request["request"]["url"] for request in asked if request["requestId"] not in refused]


def started(profile: Path) -> Iterator[Browser]:
    """A browser until the generator is closed; see `_programs` for where there is none."""
    browser, driver = _programs()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # it refuses to run as root, as in a container
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",  # no name of any host is ever found
        "--force-prefers-reduced-motion",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the paths of both, Selenium looks for nothing and fetches nothing.
    running = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        yield Browser(running)
    finally:
        running.quit()
