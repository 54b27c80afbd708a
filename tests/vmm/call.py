#!/usr/bin/env python3
"""Calls a method of poolvm's control socket: call.py SOCKET METHOD [PARAMS], and prints the result as JSON."""
import json
import socket
import sys

path, method, params = (sys.argv + ["null"])[1:4]
request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": json.loads(params) or {}}
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(60)
    sock.connect(path)
    sock.sendall(json.dumps(request).encode() + b"\n")
    answer = json.loads(sock.makefile().readline())
if "error" in answer:
    sys.exit(answer["error"]["message"])
print(json.dumps(answer["result"]))
