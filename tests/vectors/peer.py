#!/usr/bin/env python3
"""The other end of a conversation, with nothing of the crate's: makes a socketpair, hands one end
over by the classic send_fd through its standard input, and answers what comes over the other.

    peer.py libcamera|packet|stream|send_fd STREAM|SEQPACKET|DGRAM

An answer has the payload reversed, a "|", and what the descriptors contain; and as many
descriptors, each with such contents reversed. A payload "end" ends it.
"""
import array
import os
import socket
import struct
import sys

MOST = 16


def contents(descriptors):
    found = []
    for descriptor in descriptors:
        found.append(os.pread(descriptor, 4096, 0))
        os.close(descriptor)
    return found


def memfds(texts):
    made = []
    for text in texts:
        made.append(os.memfd_create("peer", os.MFD_CLOEXEC))
        os.write(made[-1], text)
    return made


def exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


class Libcamera:
    def receive(self, sock):
        header = sock.recv(64)
        data, fds, padding = struct.unpack("=IB3s", header)
        assert padding == b"\0\0\0", padding
        payload, descriptors, flags, _ = socket.recv_fds(sock, data + 1, MOST)
        assert len(payload) == data and len(descriptors) == fds and not flags & socket.MSG_CTRUNC
        return {}, payload, descriptors

    def send(self, sock, _, payload, descriptors):
        sock.send(struct.pack("=IB3x", len(payload), len(descriptors)))
        rights = array.array("i", descriptors)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        sock.sendmsg([payload], control)


class Packet:
    LAYOUT = struct.Struct("<BBBBIII")

    def receive(self, sock):
        packet, descriptors, flags, _ = socket.recv_fds(sock, 1 << 17, MOST)
        version, bits, count, _, length, kind, correlation = self.LAYOUT.unpack_from(packet)
        assert (version, bits, length) == (1, 0, len(packet) - 16), packet
        assert count == len(descriptors) and not flags & socket.MSG_CTRUNC
        return {"kind": kind + 1, "correlation": correlation}, packet[16:], descriptors

    def send(self, sock, head, payload, descriptors):
        bits = 1 if head["correlation"] else 0
        frame = self.LAYOUT.pack(
            1, bits, len(descriptors), 0, len(payload), head["kind"], head["correlation"])
        if descriptors:
            socket.send_fds(sock, [frame, payload], descriptors)
        else:
            sock.sendmsg([frame, payload])


class Stream:
    def receive(self, sock):
        private, data, fds, padding = struct.unpack("=IIB3s", exactly(sock, 12))
        assert padding == b"\0\0\0", padding
        payload, descriptors = exactly(sock, data), []
        if fds:
            marker, descriptors, flags, _ = socket.recv_fds(sock, 1, MOST)
            assert marker == b"\x77" and len(descriptors) == fds and not flags & socket.MSG_CTRUNC
        return {"kind": private + 1}, payload, descriptors

    def send(self, sock, head, payload, descriptors):
        sock.sendall(struct.pack("=IIB3x", head["kind"], len(payload), len(descriptors)))
        sock.sendall(payload)
        if descriptors:
            socket.send_fds(sock, [b"\x77"], descriptors)


class SendFd:
    """A descriptor is answered by one, an error by the next status with its text reversed."""

    def receive(self, sock):
        if sock.type == socket.SOCK_STREAM:
            data, descriptors = b"", []
            while len(data) < 2 or data[-2] != 0:
                piece, more, _, _ = socket.recv_fds(sock, 1, MOST)
                if not piece:
                    raise EOFError
                data, descriptors = data + piece, descriptors + more
        else:
            data, descriptors, _, _ = socket.recv_fds(sock, 1 << 17, MOST)
            if not data:
                raise EOFError
        text, status = data[:-2], data[-1]
        assert data[-2] == 0 and 0 not in text and len(descriptors) == (status == 0), data
        return {"status": status}, text, descriptors

    def send(self, sock, head, _, descriptors):
        text, status = head["text"], head["status"]
        if status == 0:
            socket.send_fds(sock, [b"\0\0"], descriptors)
        else:
            sock.sendmsg([text, bytes([0, status % 255 + 1])])


def main():
    wire = {"libcamera": Libcamera, "packet": Packet, "stream": Stream, "send_fd": SendFd}[sys.argv[1]]()
    ours, theirs = socket.socketpair(socket.AF_UNIX, getattr(socket, "SOCK_" + sys.argv[2]))
    with socket.socket(fileno=os.dup(0)) as way:
        socket.send_fds(way, [b"\0\0"], [theirs.fileno()])
    theirs.close()
    while True:
        try:
            head, payload, descriptors = wire.receive(ours)
        except EOFError:
            return
        if payload == b"end":
            return
        texts = contents(descriptors)
        head["text"] = payload[::-1]
        made = memfds(text[::-1] for text in texts)
        wire.send(ours, head, payload[::-1] + b"|" + b"".join(texts), made)
        for descriptor in made:
            os.close(descriptor)


if __name__ == "__main__":
    main()
