#!/usr/bin/env python3
"""An agent: protects itself, then gives each client of its socket a shell in a session of its own, and tells him why that
was killed.

As root: agent.py SOCKET ROLE; a client is `nc -NU SOCKET`. Everything goes through the command `cgmgr` and its JSON, so
that it can be done in any language; embed_agent.rs beside it is the same with the library.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

# The connection is all three of the shell's streams. cgmgr's own words do not go there: they are in the report.
SHELL = ["sh", "-c", "exec sh 2>&1"]


def protect(role):
    """Becomes this very program again, in agent.slice: `cgmgr protect` is the same process all along."""
    words = ["protect", "--role", role, "--", sys.executable, *sys.argv, "--protected"]
    os.execvp("cgmgr", ["cgmgr", *words])


def run(role, client):
    """A shell for one client, from its first word to its end: the report of its session."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        # What the shell leaves running ends with it.
        options = ["--role", role, "--report", report, "--kill-leftover"]
        said = subprocess.run(
            ["cgmgr", "run", *options, "--", *SHELL],
            stdin=client,
            stdout=client,
            stderr=subprocess.PIPE,
            text=True,
        ).stderr
        try:
            with open(report) as file:
                return json.load(file)
        except (OSError, ValueError):
            # cgmgr itself was killed.
            return {"error": said or "no report"}


def tell(report):
    """What the client should know of the end of its session."""
    if report.get("error"):
        return [report["error"], *filter(None, [report.get("help")])]
    if report["story"]:
        return report["story"]
    return [f"{report['session']} ended with exit status {report['status']}"]


def serve(role, client):
    with client:
        report = run(role, client)
        lines = [*report.get("warnings", []), *tell(report)]
        try:
            client.sendall("".join(f"{line}\n" for line in lines).encode())
        except OSError:
            pass  # It has hung up.


def main():
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} SOCKET ROLE")
    path, role = sys.argv[1:3]
    if "--protected" not in sys.argv:
        protect(role)
    if os.path.exists(path):
        os.remove(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("listening on", path, flush=True)
        while True:
            try:
                client, _ = listener.accept()
                # A thread for each, which only waits.
                threading.Thread(target=serve, args=(role, client), daemon=True).start()
            except (OSError, RuntimeError) as error:
                # Too many at once end nothing, least of all the agent.
                print("a client had to go:", error, file=sys.stderr)
                time.sleep(0.1)


main()
