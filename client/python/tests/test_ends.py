"""Subscriptions that end sooner than they began, or where there is no room for
them, tokens that come too late, processes that fork: nobody waits in vain, and
nothing goes on that is over."""

import asyncio
import os
import subprocess
import sys
import threading
import unittest
from unittest import mock

import longline
from longline import aio

from .gateway import ROOT
from .test_hostile import Peer
from .test_signals import gateway


async def handle(event, delivery):
    pass


class Ends(unittest.TestCase):
    def in_time(self, story):
        """Runs a story of asyncio's, and fails where it never ends."""

        async def limited():
            await asyncio.wait_for(story(), 20)

        asyncio.run(limited())

    def test_a_task_closes_what_has_hardly_begun(self):
        url = Peer(self, gateway).url

        async def unbegun():
            await aio.Client(url, "t").attach("crm", handle).close()

        async def left_at_once():
            async with aio.Client(url, "t").attach("crm", handle):
                pass

        async def cancelled_at_once():
            running = asyncio.create_task(aio.Client(url, "t").attach("crm", handle).run())
            await asyncio.sleep(0)
            running.cancel()
            await asyncio.wait([running])

        async def closed_before():
            subscription = aio.Client(url, "t").attach("crm", handle)
            subscription.leave()
            await subscription.run()

        for story in unbegun, left_at_once, cancelled_at_once, closed_before:
            with self.subTest(story.__name__):
                self.in_time(story)

    def test_where_no_thread_can_be_had_that_is_told(self):
        url = Peer(self, gateway).url
        start = threading.Thread.start

        def refuse(thread):
            if thread.name.endswith(self.refused):
                raise RuntimeError("can't start new thread")
            start(thread)

        async def run():
            with self.assertRaisesRegex(longline.LonglineError, "can't start new thread"):
                await aio.Client(url, "t").attach("crm", handle).run()

        for self.refused in "longline crm", "longline crm reader":
            with self.subTest(self.refused), mock.patch.object(threading.Thread, "start", refuse):
                subscription = longline.Client(url, "t").attach("crm", lambda event, delivery: None)
                subscription.start()
                with self.assertRaisesRegex(longline.LonglineError, "can't start new thread"):
                    self.assertTrue(subscription.wait(20), "it never ends")
                self.in_time(run)

    def test_a_token_that_comes_too_late_is_the_last(self):
        subscription = longline.Client(Peer(self, gateway).url, self.token).attach("crm", lambda event, delivery: None)
        self.asked, self.late, self.granted = 0, threading.Event(), threading.Event()
        subscription.start()
        self.assertTrue(self.late.wait(20))
        (renewing,) = (t for t in threading.enumerate() if isinstance(t, threading.Timer) and t.function == subscription._renew)
        subscription.close()
        self.granted.set()
        renewing.join(20)
        after = [t for t in threading.enumerate() if isinstance(t, threading.Timer) and t.function == subscription._renew]
        self.assertEqual(after, [], "it is renewed for ever")

    def token(self):
        """One that is over already; another can't be had."""
        self.asked += 1
        if self.asked == 1:
            return "e30.eyJleHAiOjF9.x"
        self.late.set()
        self.granted.wait(20)
        raise OSError("no token today")

    def test_a_child_takes_none_of_its_parent_s_connections(self):
        connections = []

        def answer(connection, head):
            connections.append([])
            while head:
                connections[-1].append(head.split()[1])
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                head = connection.recv(65536).decode()

        peer = Peer(self, answer)
        program = """
import os, sys
import longline
client = longline.Client(sys.argv[1], "t")
client.request("GET", "/v1/parent")
child = os.fork()
if not child:
    client.request("GET", "/v1/child")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
        command = [sys.executable, "-c", program, peer.url]
        subprocess.run(command, cwd=ROOT / "client/python", check=True, timeout=60, env={**os.environ, "no_proxy": "127.0.0.1"})
        self.assertEqual(connections, [["/v1/parent"], ["/v1/child"]])
