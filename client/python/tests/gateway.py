"""A real gateway to test against: a process of its own on a free port, which a
test may kill and start again on the same data. The binary is that of
LONGLINE_BINARY, or is built."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from longline import mint_token

SECRET = "the gateway and its tests share this secret"
ROOT = Path(__file__).parents[3]


def token(ttl=3600.0, **rights):
    return mint_token(SECRET, sub="tester", ttl=ttl, **(rights or {"subscribe": ["**"], "publish": ["**"], "subscriptions": ["*"], "admin": True}))


def until(condition, what="it happens", seconds=20.0):
    """Waits for a condition, which comes when it comes."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain until {what}")
        time.sleep(0.01)


class Gateway:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="longline-python-")
        self.binary = os.environ.get("LONGLINE_BINARY")
        if not self.binary:
            self.binary = os.path.join(self.dir, "longline")
            subprocess.run(["go", "build", "-o", self.binary, "."], cwd=ROOT, check=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LONGLINE_")}
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.process = subprocess.Popen(
            [
                self.binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--admin-listen", "",
                "--broker", f"embedded:{self.dir}/data?fsync=everysec", "--callback-allow-cidr", "127.0.0.0/8",
            ],
            env={**environment, "LONGLINE_JWT_SECRET": SECRET}, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        until(self.ready, "the gateway is ready")

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(Path(self.dir, "log").read_text()[-2000:])
        try:
            return urllib.request.urlopen(self.url + "/readyz", timeout=2).status == 200
        except OSError:
            return False

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()
        self.log.close()

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
