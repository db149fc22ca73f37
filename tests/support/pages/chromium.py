"""Pages in headless Chromium, driven by the Chrome DevTools Protocol over a pipe."""

import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXECUTABLE = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_TIMEOUT = 300  # seconds
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
)  # fmt: skip
# Chromium reads messages from file descriptor 3 and writes its own to 4.
_WITH_PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
_KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Chromium:
    """A running browser."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._received = b""
        self._tabs: dict[str, Tab] = {}

    def open_tab(self) -> "Tab":
        """Return a new tab with an empty page."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        to = {"targetId": target, "flatten": True}
        session = self.call("Target.attachToTarget", to)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        return tab

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        """Return the result of a method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        while (answer := self.receive()).get("id") != number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        """Return the next message; events are also given to their tab."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\0" not in self._received:
            assert select.select([pipe], [], [], _TIMEOUT)[0], "Chromium does not answer"
            data = os.read(pipe, 65_536)
            assert data, "Chromium has ended"
            self._received += data
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if tab := self._tabs.get(message.get("sessionId", "")):
            tab.record(message)
        return message


class Tab:
    """A page in the browser.

    Attributes:
        complaints: warnings and errors of the console, uncaught exceptions included.
        requests: addresses that the page has requested.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._browser, self._session = browser, session
        self._loaded = False

    def call(self, method: str, **parameters: Any) -> Any:
        """Return the result of a method of the protocol for this tab."""
        return self._browser.call(method, parameters, self._session)

    def load(self, file: Path) -> None:
        """Load a file, its scripts included."""
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._browser.receive()

    def close(self) -> None:
        """Close the tab, after which the one before it is shown."""
        self.call("Page.close")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + _TIMEOUT
        while not self.evaluate(condition):
            assert not self.complaints, self.complaints
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, of its result if it is a promise."""
        options = {"awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key and release it."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def record(self, message: dict[str, Any]) -> None:
        """Record an event."""
        event, content = message.get("method"), message.get("params", {})
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(content["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and content["type"] in {"warning", "error"}:
            self.complaints.append(json.dumps(content["args"]))
        elif event == "Log.entryAdded" and content["entry"]["level"] in {"warning", "error"}:
            self.complaints.append(content["entry"]["text"])


@contextmanager
def start_chromium(profile: Path) -> Iterator[Chromium]:
    """Start a browser that ends with the context.

    Args:
        profile: empty folder for its files.
    """
    assert EXECUTABLE is not None
    command = ["sh", "-c", _WITH_PIPES, "sh", EXECUTABLE, *_OPTIONS, "--remote-debugging-pipe"]
    with subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            browser = Chromium(process)
            yield browser
            browser.call("Browser.close", {})
        finally:
            process.terminate()
