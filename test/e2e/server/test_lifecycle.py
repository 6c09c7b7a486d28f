"""Start, stall, drain, full disks: what happens around the requests."""
import http.client
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from serving import BIN, DEMO, Server, figure
from test_openai_client import raw_stream


def read_events(stream, stamps, stop=None):
    """Appends the time of every event that comes, until the end."""
    while piece := stream.recv(1 << 16):
        stamps.extend([time.monotonic()] * piece.count(b"data: "))
        if stop and stop():
            return


def test_a_long_prompt_stalls_nobody_for_more_than_two_chunks(plan):
    chunk = 256
    server = Server(plan, "--prefill-chunk", str(chunk), weights="random:1")
    try:
        streams, stamps, threads = [], [[] for _ in range(8)], []
        for i in range(8):
            streams.append(raw_stream(server, {"prompt": f"stream {i}", "max_tokens": 30_000, "ignore_eos": True,
                                               "stream": True}))
        done = threading.Event()
        for stream, times in zip(streams, stamps):
            threads.append(threading.Thread(target=read_events, args=(stream, times, done.is_set)))
            threads[-1].start()
        while min(len(times) for times in stamps) < 20:
            time.sleep(0.01)
        begin = time.monotonic()
        status, answer = server.post("/v1/completions", {"prompt": [1000 + i % 5000 for i in range(20_000)],
                                                         "max_tokens": 1, "temperature": 0},
                                                         timeout=900)
        end = time.monotonic()
        assert status == 200, answer
        done.set()
        for thread in threads:
            thread.join()
        gaps = sorted(b - a for times in stamps for a, b in zip(times, times[1:]) if begin <= a and b <= end)
        # A step has one chunk; that of the prompt's end is the dearest, its attention being longest.
        steps = 20_000 / chunk
        mean = (end - begin) / steps
        figure(f"20,000 tokens in chunks of {chunk} beside 8 streams: mean step {1e3 * mean:.0f} ms, gaps between two "
               f"tokens p50 {1e3 * gaps[len(gaps) // 2]:.0f} ms, worst {1e3 * gaps[-1]:.0f} ms")
        # In steps, not in seconds: every stream got a token in every step that the prompt took, but for the first and
        # the last, which the clock may cut.
        for times in stamps:
            inside = sum(begin <= t <= end for t in times)
            assert inside >= steps - 3, (inside, steps)
    finally:
        for stream in streams:
            stream.close()
        server.stop()


def test_sigterm_lets_running_requests_finish(new_server):
    server = new_server()
    stream = raw_stream(server, {"prompt": "a", "max_tokens": 300, "stream": True, "ignore_eos": True})
    seen = stream.recv(1 << 16)
    server.process.send_signal(signal.SIGTERM)
    while piece := stream.recv(1 << 16):
        seen += piece
    assert b'"predicted_n":300' in seen and b"data: [DONE]" in seen and b'{"error"' not in seen
    stream.close()
    assert server.process.wait(20) == 0


def test_sigterm_ends_what_does_not_finish_in_time(new_server):
    server = new_server("--drain-timeout", "200ms")
    streams = [raw_stream(server, {"prompt": "a", "max_tokens": 30_000, "stream": True, "ignore_eos": True})
               for _ in range(20)]
    while True:  # until all of them are with the engine
        figures = server.metrics()
        if figures["qwenrt_num_requests_running"] + figures["qwenrt_num_requests_waiting"] == 20:
            break
        time.sleep(0.01)
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    ends = []
    for stream in streams:
        seen = b""
        try:
            while piece := stream.recv(1 << 16):
                seen += piece
        except ConnectionResetError:
            pass
        ends.append(b'{"error"' in seen or b"503" in seen)
    assert server.process.wait(20) == 0
    figure(f"drained 20 streams with a limit of 200 ms in {time.monotonic() - begin:.1f} s; {sum(ends)} were told why")
    assert sum(ends) == 20


def test_a_second_signal_ends_at_once(new_server):
    server = new_server()
    stream = raw_stream(server, {"prompt": "a", "max_tokens": 30_000, "stream": True, "ignore_eos": True})
    stream.recv(1000)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 143
    stream.close()


def test_while_draining_new_work_is_refused(new_server):
    server = new_server()
    kept = http.client.HTTPConnection("127.0.0.1", server.port)
    kept.request("GET", "/readyz")
    assert kept.getresponse().read() == b'{"status":"ok"}'
    stream = raw_stream(server, {"prompt": "a", "max_tokens": 3000, "stream": True, "ignore_eos": True})
    stream.recv(1000)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    kept.request("POST", "/v1/completions", json.dumps({"prompt": "a"}), {"content-type": "application/json"})
    answer = kept.getresponse()
    assert answer.status == 503 and json.loads(answer.read())["error"]["code"] == "shutting_down"
    stream.close()
    assert server.process.wait(20) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_for_logs_stops_nothing(new_server):
    server = new_server("--log-file", "/dev/full")
    for _ in range(20):
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200
    assert server.stop() == 0


def test_a_port_in_use(server, plan):
    result = subprocess.run([BIN / "qwenrt", "serve", plan, "--port", str(server.port)], capture_output=True, text=True)
    assert result.returncode == 5 and str(server.port) in result.stderr


def test_what_serve_refuses(plan, tmp_path):
    def run(*arguments):
        return subprocess.run([BIN / "qwenrt", "serve", *map(str, arguments)], capture_output=True, text=True)

    folder = run(DEMO)
    assert folder.returncode == 2 and "hint: qwenc compile" in folder.stderr and f"qwenc compile {DEMO}" in folder.stderr
    open_to_all = run(plan, "--host", "0.0.0.0", "--port", "0")
    assert open_to_all.returncode == 2 and "--api-key" in open_to_all.stderr
    too_long = run(plan, "--max-model-len", 10_000_000)
    assert too_long.returncode == 2 and "10000000" in too_long.stderr.replace(",", "")
    assert run(plan, "--kv-cache-tokens", 10**12).returncode in (2, 5)
    assert run(plan, "--chat-template", tmp_path / "none").returncode == 5
    (tmp_path / "bad.jinja").write_text("{% for %}")
    assert run(plan, "--chat-template", tmp_path / "bad.jinja").returncode == 3
    assert run(plan, "--chat-template-kwargs", "[1]", "--port", 0).returncode == 2


def test_health_is_open_and_the_port_opens_before_the_weights(server):
    for path in ("/health", "/livez", "/readyz", "/v1/health"):
        assert server.request("GET", path)[0] == 200
