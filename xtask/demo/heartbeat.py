"""The demonstration's agent: beats every 20 ms and notes how late each beat was.

Each beat touches memory and writes a line, as an agent that serves people would. `heartbeat.py report FILE FROM TO`
prints how the beats between two marks went.
"""

import sys
import time

PERIOD = 0.02


def beat(path):
    page = bytearray(1 << 20)
    with open(path, "a", buffering=1) as out:
        due = time.monotonic()
        while True:
            for i in range(0, len(page), 4096):
                page[i] = (page[i] + 1) & 255
            now = time.monotonic()
            out.write(f"{now:.4f} {now - due:.4f}\n")
            due = max(due + PERIOD, now)
            time.sleep(max(0, due - time.monotonic()))


def report(path, start, end):
    late = []
    with open(path) as lines:
        for line in lines:
            at, delay = map(float, line.split())
            if start <= at <= end:
                late.append(delay * 1000)
    late.sort()
    if not late:
        sys.exit("no beat at all: the agent was not alive")
    at = lambda share: late[min(len(late) - 1, int(share * len(late)))]
    print(f"{len(late)} beats, late by {at(0.5):.0f} ms (median), {at(0.99):.0f} ms (p99), {late[-1]:.0f} ms (worst)")


if __name__ == "__main__":
    if sys.argv[1] == "report":
        report(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    else:
        beat(sys.argv[1])
