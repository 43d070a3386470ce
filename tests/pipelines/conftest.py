"""What the tests of jobs share: tiny checkpoints as tasks, and a browser that looks at pages."""

import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 60


@pytest.fixture(scope="session")
def tasks(make_checkpoint: Callable[..., Path]) -> list[str]:
    """Labels, entities and vectors, each from a random checkpoint of its own."""
    classify = make_checkpoint("XLMRobertaForSequenceClassification", labels=["a", "b", "c"], seed=1)
    tag = make_checkpoint("XLMRobertaForTokenClassification", labels=["O", "B-X", "I-X", "B-Y"], seed=2)
    embed = make_checkpoint("XLMRobertaModel", seed=3)
    return [f"topic={classify}", f"names={tag}", f"vector={embed},task=embedding,pooling=mean"]


class Browser:
    """One page of a headless Chromium, spoken to over its debugging pipe."""

    def __init__(self, executable: str, profile: Path) -> None:
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; bash puts ours there.
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" {options} "--user-data-dir=$1" about:blank 3<&{to_read} 4>&{from_write}',
                executable,
                str(profile),
            ],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self._write, self._read = os.fdopen(to_write, "wb", buffering=0), from_read
        self._buffer = b""
        self._number, self._session = 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path: Path, *, width: int, theme: str) -> None:
        """Loads a file at a width under a colour scheme."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._receive()

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def of(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._write.close()
        os.close(self._read)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], _SECONDS)[0], "Chromium does not answer"
            content = os.read(self._read, 1 << 16)
            assert content, "Chromium ended"
            self._buffer += content
        content, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(content)
        if "method" in message:
            self.events.append(message)
        return message


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("needs Chromium; apt-get install chromium")
    browser = Browser(executable, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
