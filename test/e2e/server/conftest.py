"""Servers over the small trained checkpoint, for tests that are clients of them.

A server is started per set of flags and shared by the tests that want the same ones.
"""
import subprocess

import pytest

from serving import BIN, DEMO, Server


@pytest.fixture(scope="session")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "demo.plan"
    subprocess.run([BIN / "qwenc", "compile", DEMO, "-o", path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def servers(plan):
    """servers("--flag", ...) gives a running server with these flags; every test gets the same one for the same flags."""
    running = {}

    def get(*flags, **options):
        key = (flags, tuple(sorted(options.items())))
        if key not in running or running[key].process.poll() is not None:
            running[key] = Server(plan, *flags, **options)
        return running[key]

    yield get
    for server in running.values():
        assert server.stop() == 0, server.text()


@pytest.fixture
def server(servers):
    return servers()


@pytest.fixture
def new_server(plan):
    """A server of the test's own: new_server("--flag", ...)."""
    started = []

    def start(*flags, **options):
        started.append(Server(plan, *flags, **options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
