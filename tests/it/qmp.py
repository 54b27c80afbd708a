#!/usr/bin/env python3
"""Runs a command of QEMU's monitor: qmp.py SOCKET COMMAND [ARGUMENTS], and prints what it returns as JSON."""
import json
import socket
import sys

path, command, arguments = (sys.argv + ["{}"])[1:4]
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(30)
    sock.connect(path)
    lines = sock.makefile()
    lines.readline()
    for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": json.loads(arguments)}):
        sock.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(lines.readline())
        while "event" in answer:
            answer = json.loads(lines.readline())
        if "error" in answer:
            sys.exit(answer["error"]["desc"])
print(json.dumps(answer["return"]))
