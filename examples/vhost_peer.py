#!/usr/bin/env python3
"""The back end of examples/vhost_user.rs: speaks vhost-user over its standard input, with nothing
of the crate's."""
import fcntl
import mmap
import os
import socket
import struct

GET_FEATURES, SET_MEM_TABLE, GET_INFLIGHT_FD = 1, 5, 31
REPLY = 1 | 4  # version 1, this is an answer


def answer(sock, request, payload, descriptors=()):
    header = struct.pack("=III", request, REPLY, len(payload))
    if descriptors:
        socket.send_fds(sock, [header], descriptors)
    else:
        sock.sendall(header)
    sock.sendall(payload)


def regions(payload, descriptors):
    """The memory that a table describes, mapped."""
    (count,) = struct.unpack_from("=I4x", payload)
    assert count == len(descriptors), (count, descriptors)
    for index, descriptor in enumerate(descriptors):
        _, size, _, offset = struct.unpack_from("=QQQQ", payload, 8 + 32 * index)
        with mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset) as memory:
            yield bytes(memory)
        os.close(descriptor)


def sealed(content):
    memfd = os.memfd_create("inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(memfd, content)
    fcntl.fcntl(memfd, 1033, 0x1 | 0x2 | 0x4 | 0x8)  # F_ADD_SEALS: seal, shrink, grow, write
    return memfd


def main():
    sock = socket.socket(fileno=0)
    while True:
        header, descriptors, flags, _ = socket.recv_fds(sock, 12, 8, socket.MSG_WAITALL)
        if not header:
            return
        assert len(header) == 12 and not flags & socket.MSG_CTRUNC
        request, bits, size = struct.unpack("=III", header)
        assert bits & 3 == 1, bits
        payload = sock.recv(size, socket.MSG_WAITALL) if size else b""
        if request == GET_FEATURES:
            answer(sock, request, struct.pack("=Q", 1 << 30 | 1 << 32))
        elif request == SET_MEM_TABLE:
            answer(sock, request, b" + ".join(regions(payload, descriptors)))
        elif request == GET_INFLIGHT_FD:
            memfd = sealed(b"inflight area")
            answer(sock, request, payload, [memfd])
            os.close(memfd)
        else:
            raise SystemExit(f"request {request} is unknown")


if __name__ == "__main__":
    main()
