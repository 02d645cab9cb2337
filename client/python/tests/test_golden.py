"""The golden bytes that the gateway's tests and all SDKs' decode."""

import json
import unittest
from pathlib import Path

from longline import Event, LonglineError, SignatureError, partition_of, verify_callback
from longline.event import decode, parse_event, parse_position
from longline.stream import Parser

GOLDEN = Path(__file__).parents[3] / "gateway" / "wire" / "testdata"


def golden(name):
    return json.loads((GOLDEN / name).read_text("utf-8"))


def parse(chunks):
    parser = Parser()
    events = [m._asdict() for chunk in chunks for m in parser.push(chunk)]
    said = {"events": events, "lastEventId": parser.last_event_id}
    return said if parser.retry is None else {**said, "retry": parser.retry}


class Golden(unittest.TestCase):
    def test_frames(self):
        for row in golden("frames.json"):
            if row["from"] == "client":
                continue
            with self.subTest(row["name"]):
                if "error" in row:
                    self.assertRaises(LonglineError, decode, row["frame"])
                    continue
                got = decode(row["frame"])
                want = json.loads(row["frame"]) if row.get("inexact") else row["value"]
                self.assertEqual(got.attributes if isinstance(got, Event) else got, want)

    def test_positions(self):
        for row in golden("positions.json"):
            # The gateway refuses a channel named twice; whoever reads its positions need not.
            if row["position"] == "a@k-1,a@k-2":
                continue
            with self.subTest(row["position"]):
                if "error" in row:
                    self.assertRaises(LonglineError, lambda: list(parse_position(row["position"])))
                    continue
                self.assertEqual([c._asdict() for c in parse_position(row["position"])], row["cursors"])

    def test_streams_parse_the_same_however_they_are_cut(self):
        for path in sorted((GOLDEN / "sse").glob("*.txt")):
            data, want = path.read_bytes(), json.loads(path.with_suffix(".json").read_text("utf-8"))
            with self.subTest(path.stem):
                self.assertEqual(parse([data]), want, "whole")
                self.assertEqual(parse([data[i : i + 1] for i in range(len(data))]), want, "byte by byte")
                for at in range(len(data) + 1):
                    self.assertEqual(parse([data[:at], b"", data[at:]]), want, f"cut at {at}")

    def test_callbacks(self):
        for row in golden("callbacks.json"):
            with self.subTest(row["name"]):

                def verify():
                    return verify_callback(row["headers"], row["body"].encode(), row["secrets"], now=row["now"])

                if row["ok"]:
                    got = verify()
                    events = got if isinstance(got, list) else [got]
                    sent = json.loads(row["body"])
                    self.assertEqual([e.attributes for e in events], sent if isinstance(sent, list) else [sent])
                else:
                    self.assertRaises(SignatureError, verify)

    def test_partitions_are_those_of_the_gateway(self):
        # As in gateway and client/js: FNV-1a's published values for "" and "a", modulo.
        def event(**more):
            return parse_event({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", **more})

        self.assertEqual(partition_of(event(partitionkey="a"), 1 << 62), 0xAF63DC4C8601EC8C % (1 << 62))
        self.assertEqual(partition_of(event(), 1 << 62), partition_of(event(partitionkey="/s\0001"), 1 << 62))


if __name__ == "__main__":
    unittest.main()
