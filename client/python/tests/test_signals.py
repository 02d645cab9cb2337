"""Handlers of signals that raise, as ``sys.exit`` does, or that close: wherever
the main thread is, what it leaves ends."""

import subprocess
import sys
import threading
import unittest
from unittest import mock

import longline

from .gateway import ROOT
from .test_hostile import HELLO, STREAM, Peer, sse

NOTHING = b'{"events":[],"cursor":""}'


def gateway(connection, head):
    """Streams three events, and takes what it is told."""
    if "/v1/sse" in head:
        connection.sendall(STREAM + HELLO + b"".join(sse("", n) for n in (1, 2, 3)))
        connection.recv(1)
    else:
        body = NOTHING if head.startswith("GET") else b"{}"
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


PROGRAM = """
import _thread, signal, sys, threading
import longline
client = longline.Client(sys.argv[1], "t")
asleep = threading.Event()
def come(about):
    # The signal is noted, as always, but no call of the system's is there to be
    # interrupted: so it is where it comes just before the main thread sleeps.
    threading.Timer(0.2, _thread.interrupt_main, [signal.SIGTERM]).start()
handler = lambda event, delivery: None
"""

STORIES = {
    "waits": "with client.attach('crm', handler, on_state=lambda s: s.phase == 'live' and come(s)) as s: s.wait()",
    "runs": "client.attach('crm', handler, on_state=lambda s: s.phase == 'live' and come(s)).run()",
    "iterates": "for event in client.attach('crm'): event.id == '3' and come(event)",
    "has a stuck handler": "client.attach('crm', lambda e, d: threading.Event().wait(), grace=0.1, on_state=lambda s: s.phase == 'live' and come(s)).run()",
}
CLOSED = {
    "a subscription": "it = client.attach('crm', handler, on_state=lambda s: s.phase == 'live' and come(s)); it.run()",
    "one that is iterated over": "it = client.attach('crm')\nfor event in it: event.id == '3' and come(event)",
    "a puller": "it = client.pull('crm', handler, wait=0); come(it); it.run()",
}
EXITS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
CLOSES = "signal.signal(signal.SIGTERM, lambda *_: it.close())\n"


class Signals(unittest.TestCase):
    def end(self, before, stories, want):
        """Runs the stories' programs at once, and has them end in good order."""
        peer = Peer(self, gateway)
        command = [sys.executable, "-c"]
        programs = {
            name: subprocess.Popen([*command, PROGRAM + before + story, peer.url], cwd=ROOT / "client/python", stderr=subprocess.PIPE)
            for name, story in stories.items()
        }
        for name, program in programs.items():
            with self.subTest(name):
                try:
                    _, said = program.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.communicate()
                    self.fail("it never ended")
                self.assertEqual((program.returncode, b"Traceback" in said), (want, False), said.decode())

    def test_a_signal_that_comes_as_the_main_thread_falls_asleep(self):
        self.end(EXITS, STORIES, 7)

    def test_a_handler_of_signals_that_closes(self):
        self.end(CLOSES, CLOSED, 0)

    def test_a_signal_at_every_step(self):
        """Raises after each call that the main thread makes, where the
        interpreter looks for signals."""
        hook = mock.patch("sys.unraisablehook")  # what is raised as a loop is left
        hook.start()
        self.addCleanup(hook.stop)
        peer = Peer(self, gateway)
        client = longline.Client(peer.url, "t")

        def handled(subscription):
            with subscription:
                subscription.wait(0.001)

        def iterated(subscription):
            for event in subscription:
                if event.id == "2":
                    subscription.close()

        for name, story, handler in ("handled", handled, lambda event, delivery: None), ("iterated", iterated, None):
            step, over = 0, False
            while not over:
                step += 1
                subscription = client.attach("crm", handler, grace=0.1)
                with self.subTest(name, step=step):
                    over = not interrupted(step, lambda: story(subscription))
                    closing = threading.Thread(target=subscription.close, daemon=True)
                    closing.start()
                    closing.join(5)
                    self.assertTrue(subscription.over.is_set() and not closing.is_alive(), "it goes on for ever")


class Interrupt(BaseException):
    pass


def interrupted(step, story):
    """Raises within the story at this step of this thread; says whether it came
    so far."""
    left = step

    def profile(frame, event, about):
        nonlocal left
        if event in ("call", "c_return"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise Interrupt

    sys.setprofile(profile)
    try:
        story()
        return left <= 0
    except (Interrupt, RuntimeError):
        return True
    finally:
        sys.setprofile(None)
