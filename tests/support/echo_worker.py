"""A worker that says what it is told, until its link ends."""

from __future__ import annotations

import socket
import sys

if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end:
        while data := end.recv(4096):
            end.sendall(data)
