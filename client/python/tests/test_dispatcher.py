"""The dispatcher's rules, by a clock of the test's own: nobody waits."""

import unittest

from longline import Reject, Retry
from longline.dispatcher import Dispatcher
from longline.event import Event
from longline.retry import SUSPECT
from longline.tracker import AckTracker


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Story:
    """A dispatcher, what it was given, and what became of it."""

    def __init__(self, **options):
        self.clock = Clock()
        self.tracker = AckTracker()
        self.d = Dispatcher(clock=self.clock, **options)
        self.rejected = []
        self.offset = 0

    def add(self, *keys, again=False):
        for key in keys:
            self.offset += 1
            n = self.offset
            event = Event({"id": f"{key}{n}", "source": "/s", "type": "t", "partitionkey": key, "channel": "a", "cursor": f"a@k-{n}"})
            self.d.add(event, self.tracker.add(event.cursor, None), again, "sse")

    def take(self):
        call = self.d.take()
        return call and (" ".join(e.id for e in call[0]), call)

    def handle(self, error=None):
        """Takes and ends a call; returns whose it was."""
        taken = self.take()
        if not taken:
            return None
        self.rejected += [e.id for e, _ in self.d.settle(taken[1][2], error)]
        return taken[0]

    def wait(self):
        """Lets as much time pass as the dispatcher asks for."""
        self.d.take()
        self.clock.now += self.d.wait + 0.001

    def acked(self):
        return [a.position for a in self.tracker.due()[1]]


class Rules(unittest.TestCase):
    def test_one_call_at_a_time_keeps_all_in_order(self):
        s = Story()
        s.add("a", "b", "a")
        first = s.take()
        self.assertEqual(first[0], "a1")
        self.assertIsNone(s.take())
        s.d.settle(first[1][2], None)
        self.assertEqual([s.handle(), s.handle(), s.handle()], ["b2", "a3", None])
        self.assertEqual(s.acked(), ["a@k-3"])

    def test_more_calls_keep_each_key_in_order(self):
        s = Story(concurrency=8)
        s.add("a", "a", "b", "", "")
        self.assertEqual([s.take()[0] for _ in range(4)], ["a1", "b3", "4", "5"])
        self.assertIsNone(s.take())

    def test_a_failed_event_comes_again_and_holds_up_its_key_alone(self):
        s = Story(concurrency=2)
        s.add("a", "a", "b")
        self.assertEqual(s.handle(OSError("away")), "a1")
        self.assertEqual(s.handle(), "b3")
        self.assertEqual(s.acked(), [])
        self.assertIsNone(s.handle())
        s.wait()
        self.assertEqual([s.handle(), s.handle()], ["a1", "a2"])
        self.assertEqual(s.acked(), ["a@k-3"])

    def test_trouble_has_no_end_and_sets_nothing_aside(self):
        s = Story(concurrency=4)
        s.add(*"abcdefgh")
        began = s.clock.now
        for _ in range(400):
            while s.handle(OSError("away")):
                pass
            s.wait()
        self.assertEqual(s.rejected, [])
        self.assertGreater(s.clock.now - began, 600)
        for _ in range(40):
            while s.handle():
                pass
            if s.d.size:
                s.wait()
        self.assertEqual(s.acked(), ["a@k-8"])

    def test_a_poisonous_event_is_set_aside_while_others_pass(self):
        s = Story(concurrency=1)
        s.add(*"abcdefghijklmnop")
        for _ in range(200):
            taken = s.take()
            if not taken:
                if not s.d.size:
                    break
                s.wait()
                continue
            s.rejected += [e.id for e, _ in s.d.settle(taken[1][2], OSError("bad") if taken[0] == "a1" else None)]
        self.assertEqual(s.rejected, ["a1"])
        refusals, acks = s.tracker.due()
        self.assertEqual([r.cursor for r in refusals], ["a@k-1"])
        self.assertGreaterEqual(refusals[0].attempts, SUSPECT)
        self.assertEqual([a.position for a in acks], ["a@k-16"])

    def test_reject_is_at_once_and_by_ids_of_a_batch(self):
        s = Story(batch=3)
        s.add("a", "b", "c")
        self.assertEqual(s.handle(Reject("no", ids=["b2"])), "a1 b2 c3")
        self.assertEqual(s.rejected, ["b2"])
        refusals, acks = s.tracker.due()
        self.assertEqual(([r.cursor for r in refusals], acks[0].position), (["a@k-2"], "a@k-3"))

    def test_attempts_end_where_they_are_limited(self):
        s = Story(retry=Retry(attempts=2))
        s.add("a")
        s.handle(OSError("bad"))
        s.wait()
        s.handle(OSError("bad"))
        self.assertEqual(s.rejected, ["a1"])

    def test_a_handler_says_when_to_come_back(self):
        s = Story()
        s.add("a")
        error = OSError("busy")
        error.retry_after = 120
        s.handle(error)
        s.d.take()
        self.assertGreaterEqual(s.d.wait, 119)

    def test_a_batch_waits_to_be_filled(self):
        s = Story(batch=3, batch_wait=2.0)
        s.add("a", "b")
        self.assertIsNone(s.handle())
        s.add("c")
        self.assertEqual(s.handle(), "a1 b2 c3")
        s.add("d")
        self.assertIsNone(s.handle())
        s.wait()
        self.assertEqual(s.handle(), "d4")

    def test_a_rate_has_bursts_of_a_second(self):
        s = Story(rate=10)
        s.add(*"a" * 40)
        n = 0
        while s.handle():
            n += 1
        self.assertEqual(n, 10)
        s.clock.now += 0.5001
        while s.handle():
            n += 1
        self.assertEqual(n, 15)

    def test_what_is_known_as_handled_is_not_handled_again_where_it_was_announced(self):
        s = Story()
        s.add("a")
        s.handle()
        s.offset = 0
        s.d.add(*_again("a1", 1, s))
        self.assertIsNone(s.handle())
        self.assertEqual(s.acked(), ["a@k-1"])
        s.d.forget()
        s.d.add(*_again("a1", 1, s))
        self.assertEqual(s.handle(), "a1")

    def test_what_was_dropped_comes_anew_and_what_runs_is_not_handled_twice(self):
        s = Story(concurrency=4)
        s.add("a", "a", "b")
        running = s.take()
        s.d.drop(orphan=True)
        self.assertEqual(s.d.size, 1)
        s.tracker = AckTracker()
        s.offset = 0
        s.add("a", "a", "b", again=True)
        self.assertEqual(s.handle(), "b3")
        s.d.settle(running[1][2], None)
        self.assertEqual(s.handle(), "a2")
        self.assertEqual(s.acked(), ["a@k-3"])

    def test_callbacks_get_one_call_and_its_end(self):
        s = Story()
        answers = []
        s.d.ask(Event({"id": "x", "source": "/s", "type": "t", "channel": "a", "cursor": "a@k-9"}), False, answers.append)
        s.handle(OSError("away"))
        self.assertIsInstance(answers[0], OSError)
        self.assertEqual((s.d.size, s.handle()), (0, None))

    def test_ids_are_remembered_up_to_a_number(self):
        s = Story(remember=3)
        s.add(*"abcdef")
        while s.handle():
            pass
        self.assertLessEqual(len(s.d._past), 3)


def _again(id, offset, s):
    event = Event({"id": id, "source": "/s", "type": "t", "partitionkey": "a", "channel": "a", "cursor": f"a@k-{offset}"})
    s.tracker = AckTracker()
    return event, s.tracker.add(event.cursor, None), True, "sse"


class Tracking(unittest.TestCase):
    def test_only_the_prefix_is_acknowledged_per_channel_and_partition(self):
        t = AckTracker()
        a1, a2, b1 = t.add("a@k-1", None), t.add("a@k-2", None), t.add("b@k-7", None)
        a2.finish()
        b1.finish()
        self.assertEqual(t.due()[1], [("b@k-7", None)])
        a1.finish()
        self.assertEqual(t.due()[1], [("a@k-2", None)])
        self.assertEqual(t.unacknowledged, 0)
        p, q = t.add("c@k-1", 1), t.add("c@k-2", 2)
        q.finish()
        self.assertEqual(t.due()[1], [("c@k-2", 2)])
        p.finish()
        self.assertEqual(t.due()[1], [("c@k-1", 1)])

    def test_a_dead_letter_that_was_put_back_is_acknowledged_by_itself(self):
        t = AckTracker()
        t.step("a@k-5")
        open_, late = t.add("a@k-6", None), t.add("a@k-2", None)
        self.assertTrue(late.late)
        late.finish()
        self.assertEqual(t.due()[1], [("a@k-2", None)])
        open_.reject("no", 3)
        self.assertEqual(t.due(), ([("a@k-6", "no", 3)], [("a@k-6", None)]))

    def test_a_partition_that_moved_away_says_nothing(self):
        t = AckTracker()
        e = t.add("a@k-1", 3)
        t.gain(3)
        e.finish()
        self.assertEqual(t.due(), ([], []))
        self.assertEqual(t.unacknowledged, 0)


if __name__ == "__main__":
    unittest.main()
