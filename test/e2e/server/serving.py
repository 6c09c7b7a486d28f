"""A running `qwenrt serve` and what a client asks of it. QWEN_BIN names the folder of the programs."""
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("QWEN_BIN", ROOT / "build/bin"))
DEMO = ROOT / "test/demo/qwen3_5-demo"


class Server:
    def __init__(self, plan, *flags, weights=DEMO, env=None):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen(
            [BIN / "qwenrt", "serve", plan, "--weights", str(weights), "--port", "0", "--progress", "none", *flags],
            stderr=self.log, env={**os.environ, **(env or {})})
        deadline = time.monotonic() + 60
        while not (found := re.search(r"^address  http://127.0.0.1:(\d+)", self.text(), re.M)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.text()}")
            time.sleep(0.01)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def text(self):
        return pathlib.Path(self.log.name).read_text()

    def request(self, method, path, body=None, headers=None, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            data = json.dumps(body) if body is not None and not isinstance(body, (str, bytes)) else body
            connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post(self, path, body, **options):
        status, text = self.request("POST", path, body, **options)
        return status, json.loads(text)

    def metrics(self):
        """Sums over labels: {"qwenrt_generation_tokens_total": 12.0}."""
        sums = {}
        for line in self.request("GET", "/metrics")[1].decode().splitlines():
            if line.startswith("#"):
                continue
            name, value = line.rsplit(" ", 1)
            name = name.split("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def tokens(self, text):
        return self.post("/tokenize", {"content": text, "add_special": False})[1]["tokens"]

    def open_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def idle(self, seconds=30):
        """Waits until nothing runs or waits; the engine's figures then."""
        deadline = time.monotonic() + seconds
        while True:
            figures = self.metrics()
            if figures["qwenrt_num_requests_running"] == 0 and figures["qwenrt_num_requests_waiting"] == 0:
                return figures
            assert time.monotonic() < deadline, "requests are still running"
            time.sleep(0.01)

    def stop(self, sign=signal.SIGTERM, seconds=40):
        if self.process.poll() is None:
            self.process.send_signal(sign)
        code = self.process.wait(seconds)
        return code


def figure(text):
    """A line that `tools/dev accept` prints."""
    print(f"figure: {text}")
