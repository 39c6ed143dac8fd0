#!/usr/bin/env python3
"""Writes stream.json and send_fd.json from the layouts in docs/PROTOCOL.md, with nothing of the
crate's. The same files at every run; vectors are only ever added.

    make.py [DIRECTORY]
"""
import json
import os
import struct
import sys


def stream(name, private, payload, descriptors, note="", padding=b"\0\0\0"):
    header = struct.pack("<IIB3s", private, len(payload), descriptors, padding)
    return {
        "name": name,
        "bytes": (header + payload).hex(),
        "marker": "77" if descriptors else "",
        "descriptors": descriptors,
        "kind": private,
        "payload": payload.hex(),
        # Only these bytes come from an honest sender; others it must be able to read.
        "canonical": padding == b"\0\0\0",
        "note": note,
    }


def send_fd(name, text, status, note=""):
    return {
        "name": name,
        "bytes": (text + struct.pack("BB", 0, status)).hex(),
        "descriptors": 1 if status == 0 else 0,
        "status": status,
        "text": text.hex(),
        "note": note,
    }


STREAM = [
    stream("private-alone", 7, b"", 0, "ST-3"),
    stream("nothing-at-all", 0, b"", 0, "ST-3: twelve zero bytes"),
    stream("payload", 1, b"frame 7", 0),
    stream("byte-order", 0x04030201, bytes(range(1, 6)), 0, "little-endian: recorded on such a machine"),
    stream("largest-kind", 0xFFFFFFFF, b"\xff", 0),
    stream("one-descriptor", 2, b"open", 1),
    stream("descriptors-alone", 3, b"", 2, "header, then the marker at once"),
    stream("sixteen-descriptors", 4, b"many", 16),
    stream("marker-in-payload", 5, b"\x77\x77\x77", 1, "0x77 is a byte like any other there"),
    stream("dirty-padding", 6, b"abc", 0, "ST-2", b"\xff\x77\x01"),
    stream("dirty-padding-descriptor", 6, b"abc", 1, "ST-2", b"\1\2\3"),
    stream("hello", 0, b"\x1f", 0, "ST-12: the creating side"),
    stream("welcome", 0, b"\xf1", 0, "ST-12: the other's"),
    stream("every-byte", 8, bytes(range(256)), 0),
    stream("a-page", 9, b"p" * 4096, 3),
]

SEND_FD = [
    send_fd("descriptor", b"", 0),
    send_fd("error", b"", 1, "no text"),
    send_fd("largest-status", b"", 255),
    send_fd("text", b"no such file", 2),
    send_fd("odd-text", b"odd", 3),
    send_fd("even-text", b"even", 4),
    send_fd("not-utf-8", b"\xff\xfe\x80", 5),
    send_fd("newline", b"two\nlines\n", 6, "a newline is text"),
    send_fd("every-byte-but-zero", bytes(range(1, 256)), 7),
    send_fd("long-text", b"x" * 1000, 8),
]


def write(path, about, messages):
    with open(path, "w", encoding="ascii") as file:
        json.dump({"about": about, "messages": messages}, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    write(
        os.path.join(where, "stream.json"),
        "Messages of the wire `stream`, little-endian, written by make.py with Python's struct: bytes are "
        "header and payload, the marker's send carries the descriptors.",
        STREAM,
    )
    write(
        os.path.join(where, "send_fd.json"),
        "Messages of send_fd, written by make.py with Python's struct: text, a zero byte, the status.",
        SEND_FD,
    )
