"""The behaviour suite's driver: orders on stdin, what happens on stdout, one
JSON object a line; see docs/protocol.md, "For client authors"."""

import json
import sys
import threading
import time
import wsgiref.simple_server
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import longline  # noqa: E402

said = threading.Lock()


def say(told, **more):
    with said:
        print(json.dumps({"told": told, **more}), flush=True)


def handle(event, delivery):
    say("begin", id=event.id, attempt=delivery.attempt, redelivered=delivery.redelivered, transport=delivery.transport)
    outcome = "done"
    try:
        what = event.data or {}
        if what.get("do") == "slow":
            time.sleep(what["ms"] / 1000)
        elif what.get("do") == "reject":
            outcome = "rejected"
            raise longline.Reject("rejected by the story")
        elif what.get("do") == "fail" and delivery.attempt <= what["times"]:
            outcome = "failed"
            raise RuntimeError("failed by the story")
    finally:
        say("end", id=event.id, outcome=outcome)


def options(order):
    more = {
        "on_gap": lambda gap: say("gap", reason=gap.reason),
        "on_reject": lambda event, error: say("reject", id=event.id),
    }
    if order["do"] != "pull":
        more["on_state"] = lambda state: say("state", phase=state.phase)
        more["on_partitions"] = lambda p: say("partitions", partitions=p.partitions)
    if order.get("consumer"):
        more["consumer"] = order["consumer"]
    return {"concurrency": order.get("concurrency", 1), "retry": longline.Retry(min=0.05), **more}


def run(what):
    try:
        what()
        say("ended", code="")
    except longline.LonglineError as error:
        say("ended", code=error.code)


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


subscription = puller = None
for line in sys.stdin:
    order = json.loads(line)
    client = longline.Client(order["url"], lambda path=order["token_file"]: Path(path).read_text(), min_backoff=0.05, max_backoff=1)
    if order["do"] == "close":
        (subscription or puller).close()
    elif order["do"] == "pull":
        puller = client.pull(order["subscription"], handle, wait=2, **options(order))
        threading.Thread(target=run, args=(puller.run,), daemon=True).start()
    elif order["do"] == "subscribe":
        subscription = client.subscribe(order["channels"], handle, since=order.get("since", ""), **options(order))
        threading.Thread(target=run, args=(subscription.run,), daemon=True).start()
    elif order["do"] == "serve":
        subscription = client.attach(order["subscription"], handle, **options(order))
        app = longline.wsgi_callback(subscription, order["secret"])
        server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        say("serving", url=f"http://127.0.0.1:{server.server_port}/")
    elif order["do"] == "attach":
        subscription = subscription or client.attach(order["subscription"], handle, **options(order))
        threading.Thread(target=run, args=(subscription.run,), daemon=True).start()
