"""Notes every event of a subscription, as a CRM's integration would."""

import os
import signal
import sys

import longline

client = longline.Client(os.environ["LONGLINE_URL"], os.environ["LONGLINE_TOKEN"])
client.subscriptions.create("example-python", {"channels": ["acct-42"], "types": ["email.*"], "start": "earliest"})


def note(event: longline.Event, delivery: longline.Delivery) -> None:
    if not event.subject:
        raise longline.Reject("whose contact is this?")
    print(f"{event.subject}: {event.type} {event.data}", flush=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # leaves `with`, which acknowledges what is done

with client.attach("example-python", note, concurrency=8) as subscription:
    subscription.wait()
