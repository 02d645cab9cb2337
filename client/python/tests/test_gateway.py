"""Against a real gateway; what every SDK has to do is in the behaviour suite,
here is what is Python's own."""

import asyncio
import json
import logging
import threading
import unittest
import urllib.error
import urllib.request
import wsgiref.simple_server

import longline
from longline import Reject, aio

from .gateway import Gateway, token, until

logging.getLogger("longline").setLevel(logging.CRITICAL)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def setUp(self):
        self.client = longline.Client(self.gateway.url, token, min_backoff=0.05)
        self.addCleanup(self.client.close)

    def subscription(self, name, **more):
        self.client.subscriptions.put(name, {"channels": [name], "start": "earliest", **more})
        return name

    def fill(self, channel, n, key=""):
        more = {"partitionkey": key} if key else {}
        return self.client.publish(channel, [{"type": "t", "data": i, **more} for i in range(1, n + 1)])


class Threads(Case):
    def test_a_loop_acknowledges_what_it_went_past(self):
        self.subscription("loop")
        self.fill("loop", 3)
        seen = []
        for event in self.client.attach("loop"):
            seen.append(event.data)
            if event.data == 2:
                break
        self.assertEqual(seen, [1, 2])
        self.assertTrue(self.client.subscriptions.get("loop")["cursor"].endswith("-1"))

    def test_a_final_error_is_raised(self):
        self.assertRaises(longline.NotFoundError, self.client.attach("nowhere", print).run)
        with self.assertRaises(longline.NotFoundError):
            for _ in self.client.attach("nowhere"):
                pass
        bad = longline.Client(self.gateway.url, "nonsense")
        with self.assertRaises(longline.UnauthorizedError) as raised:
            bad.attach("x", print).run()
        self.assertEqual((raised.exception.code, raised.exception.retry, raised.exception.status), ("unauthorized", False, 401))
        self.assertTrue(raised.exception.request_id)

    def test_where_no_gateway_is_it_says_so_and_goes_on_or_fails_fast(self):
        nowhere = longline.Client("http://127.0.0.1:9", "x", timeout=1)
        self.assertRaises(longline.ConnectionError, nowhere.attach("x", print, fail_fast=True).run)
        logging.getLogger("longline").setLevel(logging.WARNING)
        self.addCleanup(logging.getLogger("longline").setLevel, logging.CRITICAL)
        with self.assertLogs("longline", "WARNING") as told:
            sub = nowhere.attach("x", print).start()
            until(lambda: told.output, "it is told")
            sub.close()
        self.assertIn("no connection to the gateway", told.output[0])

    def test_close_may_be_called_by_the_handler(self):
        self.subscription("self-closing")
        self.fill("self-closing", 1)
        sub = self.client.attach("self-closing", lambda event, delivery: sub.close())
        sub.run()
        self.assertTrue(self.client.subscriptions.get("self-closing")["cursor"].endswith("-1"))

    def test_many_who_publish_at_once_share_requests(self):
        requests = []
        inner = self.client.access.request
        self.client.access.request = lambda *a, **k: requests.append(a) or inner(*a, **k)
        results = {}

        def publish(i):
            results[i] = self.client.publish("crowd", {"type": "t", "data": i})

        threads = [threading.Thread(target=publish, args=(i,)) for i in range(200)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertLess(len(requests), 100)
        self.assertEqual(len({r["cursor"] for r in results.values()}), 200)
        for event in self.client.channels.read("crowd", since="earliest", limit=1000).events:
            self.assertEqual(results[event.data]["id"], event.id)

    def test_one_mistake_is_not_the_others(self):
        with self.assertRaises(longline.BadRequestError):
            self.client.publish("mistakes", {"type": "t", "data": float("nan")})
        with self.assertRaises(longline.BadRequestError):
            self.client.publish("mistakes", {"data": 1})
        with self.assertRaises(longline.TooLargeError):
            self.client.publish("mistakes", {"type": "t", "data": "x" * 300_000})
        self.assertEqual(self.client.publish("mistakes", []), [])

    def test_administration(self):
        s = self.client.subscriptions
        self.assertTrue(s.create("adm", {"channels": ["adm"], "start": "earliest", "labels": {"team": "crm"}}))
        self.assertFalse(s.create("adm", {"channels": ["other"]}))
        self.assertEqual(s.patch("adm", {"description": "hello"})["description"], "hello")
        self.assertEqual([i["name"] for i in s.list(prefix="adm", limit=1)], ["adm"])
        cursors = [p["cursor"] for p in self.fill("adm", 3)]
        self.assertEqual(self.client.channels.get("adm")["head"], 3)
        self.assertEqual([e.data for e in self.client.channels.read("adm", since=cursors[0]).events], [2, 3])
        page = self.client.pull_once("adm", consumer="me", max=2)
        self.assertEqual([e.data for e in page.events], [1, 2])
        s.reject("adm", cursors[0], "no such contact", attempts=3)
        self.assertEqual([(d.event.data, d.reason, d.attempts) for d in s.dead("adm")], [(1, "no such contact", 3)])
        self.assertEqual(s.trace("adm", cursor=cursors[0])["state"], "dead")
        s.ack("adm", cursors[2])
        self.assertEqual(s.trace("adm", cursor=cursors[1])["state"], "acknowledged")
        s.clear_dead("adm")
        self.assertEqual(s.dead("adm"), [])
        s.pause("adm")
        self.assertEqual(s.get("adm")["status"]["state"], "paused")
        s.resume("adm")
        s.seek("adm", cursors[0])
        self.assertEqual(s.get("adm")["cursor"], cursors[0])
        self.assertEqual(list(s.attempts("adm")), [])
        self.assertIn("adm", list(self.client.channels.list(prefix="adm")))
        s.delete("adm")
        self.assertRaises(longline.NotFoundError, s.get, "adm")
        self.client.tokens.revoke(sub="nobody")

    def test_options_that_are_none_are_refused(self):
        self.assertRaises(TypeError, self.client.attach, "x", print, concurency=3)
        self.assertRaises(TypeError, self.client.attach, "x", print, concurrency=-1)
        self.assertRaises(TypeError, self.client.subscribe, "x", print)
        self.assertRaises(TypeError, self.client.attach, "x", asyncio.sleep)
        self.assertRaises(TypeError, self.client.subscribe, ["x"], print, types="email.*")
        self.assertRaises(TypeError, self.client.subscribe, ["x"], print, since=5)
        for bad in {"retry": 3}, {"on_reject": "log"}, {"concurrency": 1.5}, {"rate": float("nan")}, {"grace": "10s"}:
            self.assertRaises(TypeError, self.client.attach, "x", print, **bad)
        self.assertRaises(TypeError, longline.Retry, attempts="3")


class Callbacks(Case):
    def serve(self, app):
        class Quiet(wsgiref.simple_server.WSGIRequestHandler):
            def log_message(self, *args):
                pass

        server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}/hook"

    def test_wsgi(self):
        seen = []

        def handler(event, delivery):
            seen.append((event.data, delivery.transport, delivery.redelivered))
            if event.data == "bad":
                raise Reject("bad")
            if event.data == "busy":
                raise longline.RetryAfter(7)

        secret = "whsec_" + "c2VjcmV0" * 4
        url = self.serve(longline.wsgi_callback(handler, secret, path="/hook"))
        self.subscription("wsgi", callback={"url": url, "secret": secret})
        self.assertEqual(self.client.subscriptions.test("wsgi")["status"], 204)

        def call(*data, batch=False, **more):
            events = [{"specversion": "1.0", "id": d, "source": "/s", "type": "t", "channel": "a", "cursor": "a@k-1", "data": d} for d in data]
            body = json.dumps(events if batch else events[0]).encode()
            request = urllib.request.Request(url, body, {**sign(secret, body), **more})
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.headers.get("retry-after")

        self.assertEqual(call("good"), (204, b""))
        self.assertEqual(call("bad")[0], 422)
        self.assertEqual(call("busy"), (503, "7"))
        self.assertEqual(call("one", "bad", batch=True), (200, b'{"rejected": ["bad"]}'))
        self.assertEqual(call("good", **{"longline-attempt": "2"}), (204, b""))  # known as handled
        self.assertEqual([s for s in seen if s[0] == "good"], [("good", "callback", False)])
        self.assertEqual(call("good", **{"webhook-signature": "v1,bm8="})[0], 401)

    def test_asgi(self):
        seen = []

        async def handler(event, delivery):
            await asyncio.sleep(0)
            seen.append(event.data)
            if event.data == "bad":
                raise Reject("bad")

        secret = "whsec_" + "c2VjcmV0" * 4
        app = aio.asgi_callback(handler, secret, path="/hook")

        async def call(body, headers, path="/hook"):
            sent = []
            messages = [{"type": "http.request", "body": body[:10], "more_body": True}, {"type": "http.request", "body": body[10:]}]

            async def receive():
                return messages.pop(0)

            async def send(message):
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
            await app(scope, receive, send)
            return sent[0]["status"], sent[1]["body"]

        async def all_of_them():
            event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "channel": "a", "cursor": "a@k-1", "data": "good"}
            good, bad = json.dumps(event).encode(), json.dumps([event | {"id": "2"}, event | {"id": "3", "data": "bad"}]).encode()
            self.assertEqual((await call(good, sign(secret, good)))[0], 204)
            self.assertEqual((await call(good, sign("whsec_b3RoZXI=", good)))[0], 401)
            self.assertEqual(await call(bad, sign(secret, bad)), (200, b'{"rejected": ["3"]}'))
            self.assertEqual((await call(b"x" * 20, sign(secret, b"x" * 20)))[0], 400)
            self.assertEqual((await call(good, {}, "/else"))[0], 404)
            # A subscription's handler is fed, whether it is attached or not.
            nonlocal app
            app = aio.asgi_callback(aio.Client(self.gateway.url).attach("unattached", handler), secret, path="/hook")
            self.assertEqual((await call(good, sign(secret, good)))[0], 204)

        asyncio.run(asyncio.wait_for(all_of_them(), 20))
        self.assertEqual(seen, ["good", "good", "bad", "good"])


def sign(secret, body):
    import base64
    import hashlib
    import hmac
    import time

    stamp = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, b"m1." + stamp.encode() + b"." + body, hashlib.sha256).digest()
    return {"webhook-id": "m1", "webhook-timestamp": stamp, "webhook-signature": "v1," + base64.b64encode(made).decode()}


class Loops(Case):
    def test_handlers_that_are_coroutines(self):
        self.subscription("aio")
        self.fill("aio", 50)

        async def main():
            client = aio.Client(self.gateway.url, token)
            seen, together, most = [], 0, 0

            async def handler(event, delivery):
                nonlocal together, most
                together += 1
                most = max(most, together)
                await asyncio.sleep(0.001)
                together -= 1
                seen.append(event.data)
                if len(seen) == 50:
                    await sub.close()

            sub = client.attach("aio", handler, concurrency=5)
            await sub.run()
            self.assertEqual((sorted(seen), most), (list(range(1, 51)), 5))
            self.assertTrue((await client.subscriptions.get("aio"))["cursor"].endswith("-50"))
            published = await asyncio.gather(*(client.publish("aio", {"type": "t", "data": i}) for i in range(300)))
            self.assertEqual(len({p["cursor"] for p in published}), 300)
            n = 0
            async for event in client.attach("aio"):
                n += 1
                if n == 300:
                    break
            with self.assertRaises(longline.NotFoundError):
                await client.attach("nowhere", handler).run()
            await client.close()

        asyncio.run(main())

    def test_cancelling_run_closes_it(self):
        self.subscription("cancelled")
        self.fill("cancelled", 1)

        async def main():
            done = asyncio.Event()

            async def handler(event, delivery):
                done.set()

            task = asyncio.create_task(aio.Client(self.gateway.url, token).attach("cancelled", handler).run())
            await done.wait()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        self.assertTrue(self.client.subscriptions.get("cancelled")["cursor"].endswith("-1"))


class Pull(Case):
    def test_a_job_of_crons_takes_what_there_is(self):
        self.subscription("cron")
        self.fill("cron", 250)
        seen = []

        def handler(event, delivery):
            seen.append(event.data)
            if event.data == 7:
                raise Reject("seven")

        self.assertEqual(self.client.pull("cron", handler, concurrency=4).run(until_empty=True), 250)
        self.assertEqual(sorted(seen), list(range(1, 251)))
        info = self.client.subscriptions.get("cron")
        self.assertEqual((info["status"]["state"], info["status"]["dead"]), ("offline", 1))
        self.assertTrue(info["cursor"].endswith("-250"))

    def test_one_puller_runs_again_and_again_whatever_its_callbacks_raise(self):
        self.subscription("again")
        ended = []

        def handler(event, delivery):
            raise Reject("no")

        def on_reject(event, error):
            raise OSError("the list of rejects is away")

        puller = self.client.pull("again", handler, on_reject=on_reject)

        def work():
            for _ in range(3):
                self.fill("again", 2)
                ended.append(puller.run(until_empty=True))

        threading.Thread(target=work, daemon=True).start()
        until(lambda: ended == [2, 2, 2], "it took all, each time")
        self.assertEqual(self.client.subscriptions.get("again")["status"]["dead"], 6)

    def test_a_job_of_crons_leaves_what_fails_for_the_next_time(self):
        self.subscription("leaves")
        self.fill("leaves", 5)
        failing = [3]

        def handler(event, delivery):
            if event.data in failing:
                raise OSError("away")

        self.assertEqual(self.client.pull("leaves", handler).run(until_empty=True), 2)
        self.assertTrue(self.client.subscriptions.get("leaves")["cursor"].endswith("-2"))
        failing.clear()
        self.assertEqual(self.client.pull("leaves", handler).run(until_empty=True), 3)


if __name__ == "__main__":
    unittest.main()
