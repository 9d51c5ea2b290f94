"""Chromium without a window, and the examples' pages as they look in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import attrs
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

WHY_NOT = "needs a browser: Debian's chromium and chromium-driver"
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")
HAS_BROWSER = bool(_CHROMIUM and _DRIVER)

_ARGUMENTS = (
    "--headless=new",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but this machine
    "--no-first-run",
)

# Of an order, as it is read by people.
_ROW = """
const row = document.getElementById("order-" + arguments[0]);
if (!row) return null;
const text = (selector) => row.querySelector(selector)?.textContent.trim() ?? "";
return {
  state: row.dataset.state,
  label: text(".state"),
  what: text(".what"),
  where: text(".where"),
  filled: text(".fill .number"),
  value: row.querySelector("progress").value,
  reason: text(".reason"),
  steps: [...row.querySelectorAll(".steps li")].map((step) => [step.firstChild.data.trim(), step.dataset.state]),
};
"""
_BALANCES = """
const rows = [...document.querySelectorAll("#balances tbody tr")];
return Object.fromEntries(rows.map((row) => [...row.cells].map((cell) => cell.textContent)).map(
  ([venue, ...cells]) => [venue, cells]));
"""
# All text that is seen, with the colours of its letters and of what is behind it.
_TEXTS = """
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.data.trim() || element.closest(".unseen")) continue;
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  found.push([node.data.trim(), getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]);
}
return found;
"""


@attrs.frozen
class Row:
    """An order on a page."""

    state: str
    label: str
    what: str
    where: str
    filled: str
    value: int
    reason: str
    steps: list[list[str]]


class Page:
    """A browser with a profile of its own, at an example's page."""

    def __init__(self, url: str) -> None:
        options = ChromeOptions()
        options.binary_location = _CHROMIUM or ""
        for argument in (*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(options=options, service=Service(_DRIVER))
        self._url = url

    def sign_in(self, name: str, password: str) -> None:
        self.driver.get(self._url)
        for field, text in {"username": name, "password": password}.items():
            element = self.driver.find_element(By.NAME, field)
            element.clear()
            element.send_keys(text)
        self.driver.find_element(By.CSS_SELECTOR, ".sign-in button").click()

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent.trim() ?? ''", selector))

    def press(self, end: str) -> None:
        """Place an order with the button for an end."""
        self.driver.find_element(By.CSS_SELECTOR, f'#place button[value="{end}"]').click()

    def row(self, order_id: str) -> Row | None:
        fields = self.run(_ROW, order_id)
        return None if fields is None else Row(**fields)

    def orders(self) -> list[str]:
        """Return the ids of the orders on the page, from above."""
        script = "return [...document.querySelectorAll('.order')].map((row) => row.id.replace('order-', ''))"
        return list(self.run(script))

    def balances(self) -> dict[str, list[str]]:
        """Return what is to trade with and in the wallet, by venue."""
        return dict(self.run(_BALANCES))

    def texts(self) -> list[tuple[str, str, str]]:
        """Return each text that is seen, its colour and that of the ground."""
        return [(text, colour, ground) for text, colour, ground in self.run(_TEXTS)]

    @contextlib.contextmanager
    def looking(self, *, scheme: str, width: int) -> Iterator[None]:
        """Look at it in a colour scheme ("light", "dark") and with so many pixels from side to side."""
        command = self.driver.execute_cdp_cmd
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setEmulatedMedia", {"features": features})
        command("Emulation.setDeviceMetricsOverride", size)
        try:
            yield
        finally:
            command("Emulation.clearDeviceMetricsOverride", {})
            command("Emulation.setEmulatedMedia", {"features": []})

    def console(self) -> list[str]:
        """Return what the browser has complained of since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.driver.quit()
