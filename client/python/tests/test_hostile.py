"""Peers that answer garbage, or slowly, handlers that do what they should not,
and programs that are interrupted: nothing hangs, and nothing is lost unsaid."""

import asyncio
import logging
import json
import socket
import threading
import unittest
from unittest import mock

import longline
from longline import Reject, Retry, aio, line
from longline.dispatcher import Dispatcher
from longline.event import Event, parse_json
from longline.publish import LARGEST, Outboxes, letter_of, pages
from longline.subscription import Workers
from longline.tasks import Calls
from longline.tracker import AckTracker

from .gateway import until

logging.getLogger("longline").setLevel(logging.CRITICAL)

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
HELLO = b'event: longline.hello\ndata: {"connection":"c","session":"ephemeral","cursor":"a@k-0","heartbeat_ms":60000}\n\n'


def sse(event, n):
    return f'id: a@k-{n}\ndata: {{"specversion":"1.0","id":"{n}","source":"/s","type":"t","channel":"a","cursor":"a@k-{n}"{event}}}\n\n'.encode()


class Peer:
    """Takes connections and answers each by ``answer``, which is given the
    socket and the request's head."""

    def __init__(self, case, answer):
        self.heads = []
        self.over = threading.Event()
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        case.addCleanup(self._listener.close)
        case.addCleanup(self.over.set)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.heads.append(head.decode())
            try:
                self._answer(connection, head.decode())
            except OSError:
                pass  # it had enough

    def drip(self, connection, drop):
        while not self.over.wait(0.01):
            connection.sendall(drop)


def says(*parts):
    """Answers by these bytes, and keeps the connection."""

    def answer(connection, head):
        connection.sendall(b"".join(parts))
        connection.recv(1)

    return answer


class Garbage(unittest.TestCase):
    def client(self, answer, **options):
        self.peer = Peer(self, answer)
        client = longline.Client(self.peer.url, **{"token": "t", "min_backoff": 0.001, "max_backoff": 0.01, **options})
        self.addCleanup(client.close)
        return client

    def test_a_stream_that_cannot_be_read_is_a_protocol_error(self):
        for garbage in (
            b"event: longline.hello\ndata: [1]\n\n",
            b'event: longline.hello\ndata: {"heartbeat_ms":"often","cursor":""}\n\n',
            b'event: longline.hello\ndata: {"of":"x"}\n\n',
            HELLO + b"event: longline.gap\ndata: 7\n\n",
            HELLO + b'event: longline.bye\ndata: {"code":"x"}\n\n',
            HELLO + b"data: not JSON\n\n",
            HELLO + b'data: {"specversion":"1.0","id":"1","source":"/s","type":"t","cursor":7}\n\n',
        ):
            with self.subTest(garbage):
                subscription = self.client(says(STREAM, garbage)).subscribe(["a"], lambda event, delivery: None)
                self.assertRaises(longline.ProtocolError, subscription.run)
                self.assertEqual(len(self.peer.heads), 3)

    def test_answers_of_another_shape_are_protocol_errors(self):
        for body in (b"[]", b"{}", b"7", b'{"events":7}', b'{"events":[7],"cursor":""}', b"<html>"):
            with self.subTest(body):
                client = self.client(says(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body))
                self.assertRaises(longline.ProtocolError, client.pull_once, "crm")
                self.assertRaises(longline.ProtocolError, client.pull("crm", lambda event, delivery: None).run)
                self.assertRaises(longline.ProtocolError, client.publish, "a", {"type": "t"})

    def test_who_drips_is_not_waited_for_forever(self):
        endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

        def answer(connection, head):
            connection.sendall(STREAM if "/v1/sse" in head else endless)
            self.peer.drip(connection, b": here\n\n" if "/v1/sse" in head else b"1\r\nx\r\n")

        client = self.client(answer, timeout=0.3)
        self.assertRaises(longline.ConnectionError, client.request, "GET", "/v1/nodes")
        self.assertRaises(longline.ConnectionError, client.subscribe(["a"], lambda event, delivery: None, fail_fast=True).run)

    def test_an_answer_that_is_cut_off_is_none(self):
        client = self.client(lambda connection, head: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}"))
        self.assertRaises(longline.ConnectionError, client.request, "GET", "/v1/nodes")

    def test_a_redirect_is_told_and_not_followed(self):
        client = self.client(says(b"HTTP/1.1 308 Moved\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n"))
        with self.assertRaisesRegex(longline.LonglineError, "308, to https://elsewhere/"):
            client.subscribe(["a"], lambda event, delivery: None).run()

    def test_tokens_from_files_have_line_ends_and_what_is_no_token_is_told(self):
        client = self.client(says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), token=lambda: " abc\n")
        client.request("GET", "/v1/nodes")
        self.assertIn("bearer abc\r\n", self.peer.heads[0].lower())
        self.assertRaises(longline.BadRequestError, longline.Client, self.peer.url, None)
        for bad in None, b"abc", "two words", "a\nb":
            with self.subTest(bad), self.assertRaises(longline.UnauthorizedError) as raised:
                longline.Client(self.peer.url, lambda: bad).request("GET", "/v1/nodes")
            self.assertNotIn("abc", str(raised.exception))

    def test_a_line_ends_although_its_handler_does_not(self):
        stuck = threading.Event()
        self.addCleanup(stuck.set)
        client = self.client(says(STREAM, HELLO, *(sse("", n) for n in range(1, 5))))
        waiting = []
        with mock.patch.object(line, "SLOW", 0.01):
            subscription = client.subscribe(
                ["a"], lambda event, delivery: stuck.wait(), window=1, grace=0.0, on_state=lambda s: waiting.append(s.phase == "waiting")
            ).start()
            until(lambda: any(waiting), "it hangs up on the slow handler")
            subscription.close()
        until(subscription.over.is_set, "it is over", 5)

    def test_a_line_ends_although_nobody_takes_its_acknowledgements(self):
        refuses = b"HTTP/1.1 503 Not now\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

        def answer(connection, head):
            connection.sendall(STREAM + HELLO + sse("", 1) if "/v1/sse" in head else refuses)
            connection.recv(1)

        subscription = self.client(answer).attach("crm", lambda event, delivery: None).start()
        until(lambda: len(self.peer.heads) > 3, "it tries again and again")
        closing = threading.Thread(target=subscription.close, daemon=True)
        closing.start()
        closing.join(20)
        self.assertTrue(subscription.over.is_set())

    def test_what_is_refused_in_vain_is_not_acknowledged(self):
        """Who acknowledges what is behind it says that it is done."""
        page = json.dumps({"events": [json.loads(sse("", n).split(b"data: ")[1]) for n in (1, 2)], "cursor": "a@k-2"}).encode()

        def answer(connection, head):
            if "/v1/sse" in head:
                connection.sendall(STREAM + HELLO + sse("", 1) + sse("", 2))
                connection.recv(1)
            status, body = b"200 OK", b"{}"
            if "/reject" in head:
                status, body = b"503 Not now", b""
            elif head.startswith("GET"):
                body = b'{"events":[],"cursor":"a@k-2"}' if "ack=a" in head else page
            connection.sendall(b"HTTP/1.1 %s\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)

        def handler(event, delivery):
            if event.id == "1":
                raise longline.Reject("no such contact")

        for story in "a line", "a puller":
            with self.subTest(story):
                client = self.client(answer)
                if story == "a puller":
                    client.pull("crm", handler).run(until_empty=True)
                else:
                    subscription = client.attach("crm", handler).start()
                    until(lambda: any("/reject" in head for head in self.peer.heads), "it is refused")
                    subscription.close()
                said = [head.split(" HTTP/")[0] for head in self.peer.heads]
                self.assertTrue(any("/reject" in one for one in said), said)
                self.assertEqual([one for one in said if "/ack" in one or "ack=a" in one], [])

    def test_a_clock_that_is_wrong_renews_ever_more_rarely(self):
        asked = []

        def token():
            asked.append(1)
            # It ends a minute ago, by our clock; the gateway takes it.
            return longline.mint_token("x" * 32, sub="s", ttl=-60.0 - len(asked))

        subscription = self.client(says(STREAM, HELLO), token=token).subscribe(["a"], lambda event, delivery: None)
        waits = []
        timer = threading.Timer

        def at_once(wait, call, arguments=()):
            if call == subscription._renew:
                waits.append(wait)
                wait = 0 if len(waits) < 6 else 60
            return timer(wait, call, arguments)

        with mock.patch.object(line.threading, "Timer", at_once), subscription:
            until(lambda: len(waits) > 5, "it renews and renews")
        self.assertEqual(waits, sorted(set(waits)))


class Handlers(unittest.TestCase):
    def story(self, **options):
        tracker = AckTracker()
        dispatcher = Dispatcher(**{"retry": Retry(min=0.001, max=0.001), **options})
        self.addCleanup(dispatcher.close)
        event = Event({"id": "1", "source": "/s", "type": "t", "channel": "a", "cursor": "a@k-1"})
        return dispatcher, tracker, lambda: dispatcher.add(event, tracker.add(event.cursor, None), False, "sse")

    def test_what_cannot_be_a_handler_is_refused(self):
        def generator(event, delivery):
            yield

        async def asynchronous_generator(event, delivery):
            yield

        client, loop = longline.Client("http://127.0.0.1:9"), aio.Client("http://127.0.0.1:9")
        for bad in (7, "print", lambda: None, lambda event: None, lambda a, b, c: None, generator, asynchronous_generator):
            with self.subTest(bad):
                self.assertRaises(TypeError, client.attach, "crm", bad)
                self.assertRaises(TypeError, client.pull, "crm", bad)
                self.assertRaises(TypeError, loop.attach, "crm", bad)
                self.assertRaises(TypeError, aio.asgi_callback, bad, "whsec_c2VjcmV0")
                self.assertRaises(TypeError, longline.wsgi_callback, bad, "whsec_c2VjcmV0")
        for good in (print, lambda *all: None, lambda event, delivery, more=1: None):
            client.attach("crm", good)

    def test_a_coroutine_that_nobody_awaits_is_no_success(self):
        async def handle(event, delivery):
            pass

        dispatcher, tracker, add = self.story(retry=Retry(attempts=1))
        workers = Workers(dispatcher, lambda event, delivery: handle(event, delivery), 1, False)
        refused = []
        workers.rejected = lambda event, error: refused.append(error)
        add()
        until(lambda: refused, "it is told of")
        self.assertIsInstance(refused[0], TypeError)
        self.assertEqual([r.cursor for r in tracker.due()[0]], ["a@k-1"])

    def test_a_call_that_waited_for_what_was_cancelled_is_made_again(self):
        dispatcher, tracker, add = self.story()
        seen = []

        async def handle(event, delivery):
            seen.append(delivery.attempt)
            if len(seen) == 1:
                raise asyncio.CancelledError
            if len(seen) == 2:
                asyncio.current_task().cancel()  # somebody cancels all there are, and goes on
                await asyncio.sleep(0)

        async def main():
            calls = Calls(dispatcher, handle, False, lambda event, error: None)
            add()
            while dispatcher.size:
                await asyncio.sleep(0.001)
            calls.stop()

        asyncio.run(asyncio.wait_for(main(), 10))
        self.assertEqual(seen, [1, 2, 2])
        self.assertEqual([a.position for a in tracker.due()[1]], ["a@k-1"])

    def test_closing_needs_no_thread_that_a_handler_waits_for(self):
        async def main():
            from concurrent.futures import ThreadPoolExecutor

            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            begun, closing, ended = asyncio.Event(), asyncio.Event(), []

            async def handle(event, delivery):
                begun.set()
                await closing.wait()
                ended.append(await asyncio.to_thread(int, "7"))

            peer = Peer(self, says(STREAM, HELLO, sse("", 1)))
            subscription = aio.Client(peer.url).subscribe(["a"], handle, grace=30.0).start()
            await begun.wait()
            closed = asyncio.ensure_future(subscription.close())
            while not subscription._stop.is_set():
                await asyncio.sleep(0.001)
            closing.set()
            await asyncio.wait_for(closed, 10)
            return ended

        self.assertEqual(asyncio.run(main()), [7])

    def test_what_is_set_aside_leaves_nothing_behind(self):
        subscription = longline.Client("http://127.0.0.1:9").attach("crm", lambda event, delivery: None)
        for n in range(10):
            subscription.rejected(Event({"id": str(n), "source": "/s", "type": "t"}), Reject("no"))
        self.assertEqual(len(subscription.trouble._told), 0)


class Texts(unittest.TestCase):
    def test_events_that_only_look_unreadable_are_read(self):
        self.assertEqual(parse_json('{"n":%s,"m":7}' % ("1" * 5000)), {"n": float("inf"), "m": 7})
        self.assertEqual(len(str(parse_json("[" * 505 + "]" * 505))), 1010)  # as deep as data may be, in an event of a page

    def test_requests_are_measured_in_bytes(self):
        letters = [letter_of({"type": "t", "data": "界" * 84_000}) for _ in range(40)]
        self.assertLessEqual(max(sum(len(one.encode()) + 1 for one in page) for page in pages(letters)), LARGEST)
        self.assertRaises(longline.BadRequestError, letter_of, {"type": "t", "data": "\ud800"})


class Interrupted(unittest.TestCase):
    def test_who_posts_for_others_and_is_interrupted_leaves_nobody_waiting(self):
        posting, go = threading.Event(), threading.Event()
        turns = [None, KeyboardInterrupt, None]

        def post(channel, letters):
            posting.set()
            go.wait(10)
            raised = turns.pop(0)
            if raised:
                raise raised
            return [{"id": letter, "cursor": "a@k-1"} for letter in letters]

        outboxes = Outboxes(post)
        ends = {}

        def publish(name):
            try:
                ends[name] = outboxes.publish("a", [name])[0]["id"]
            except BaseException as error:
                ends[name] = type(error).__name__

        threads = [threading.Thread(target=publish, args=(name,), daemon=True) for name in ("one", "two", "three")]
        for n, thread in enumerate(threads):
            thread.start()
            posting.wait(10)
            until(lambda: len(outboxes._waiting["a"]) == n, "it waits")
        go.set()
        until(lambda: len(ends) == 3, "all go on", 5)
        self.assertEqual(ends, {"one": "one", "two": "KeyboardInterrupt", "three": "UnavailableError"})
        publish("four")
        self.assertEqual(ends["four"], "four")

    def test_who_waits_for_a_turn_and_is_interrupted_is_passed_over(self):
        posting, go = threading.Event(), threading.Event()

        def post(channel, letters):
            posting.set()
            go.wait(10)
            return [{"id": letter, "cursor": "a@k-1"} for letter in letters]

        outboxes = Outboxes(post)
        first = threading.Thread(target=outboxes.publish, args=("a", ["one"]), daemon=True)
        first.start()
        posting.wait(10)
        with mock.patch("longline.publish.Future.result", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, outboxes.publish, "a", ["two"])
        go.set()
        first.join(5)
        ends = []
        threading.Thread(target=lambda: ends.append(outboxes.publish("a", ["three"])), daemon=True).start()
        until(lambda: ends, "the next one publishes", 5)

    def test_a_loop_that_ends_while_it_publishes_leaves_the_next_one_free(self):
        go = threading.Event()

        def answer(connection, head):
            go.wait(10)
            body = b'{"events":[{"id":"1","cursor":"a@k-1"}]}'
            connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

        peer = Peer(self, answer)
        client = aio.Client(peer.url)

        async def main():
            tasks = [asyncio.ensure_future(client.publish("a", {"type": "t"})) for _ in range(3)]
            while not peer.heads:
                await asyncio.sleep(0.001)
            return tasks

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        go.set()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.run(asyncio.wait_for(client.publish("a", {"type": "t"}), 10))
