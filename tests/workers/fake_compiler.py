"""A compile worker that does what its job's description says: succeed, print, raise, crash, hang, eat memory, exit."""

import ctypes
import os
import signal
import sys
import time

from convgen.errors import EmitError
from convgen.workers.child import serve


def build(description, target, choice, directory, symbol):
    what = description["do"]
    if what == "print":
        sys.stdout.write("p" * 5_000_000)
        print("python")
        os.write(1, b"q" * 5_000_000)
        ctypes.CDLL(None).puts(b"from C")
        ctypes.CDLL(None).fflush(None)
    elif what == "invalid":
        raise EmitError("tile 7 does not divide 8")
    elif what == "error":
        raise RuntimeError("LLVM said no")
    elif what == "unpicklable":
        class Odd(Exception):
            def __init__(self, a, b):
                self.held = [a, b, lambda: 0]
        raise Odd(1, object())
    elif what == "segfault":
        ctypes.string_at(0)
    elif what == "exit":
        os._exit(1)
    elif what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "began" in description:
            open(os.path.join(description["began"], str(os.getpid())), "w").close()
        while True:
            time.sleep(0.01)
    elif what == "spin":  # holds the interpreter inside C code
        ctypes.CDLL(None).pause()
    elif what == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(64 << 20))
    elif what == "bad_alloc":
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()
    elif what == "child":
        child = os.fork()
        if child == 0:
            time.sleep(100)
        with open(os.path.join(directory, "child.part"), "w") as file:
            file.write(str(child))
        os.rename(file.name, os.path.join(directory, "child"))
        time.sleep(100)
    elif what == "garbage":
        return {"bad": object()}
    elif what == "compute":
        end = time.process_time() + description["seconds"]
        while time.process_time() < end:
            pass
    elif what == "sleep":
        time.sleep(description["seconds"])
    return {"symbol": symbol, "choice": choice, "object": "k.o", "pid": os.getpid(), "cwd": os.getcwd()}


def main():
    serve({"build": build, "load": time.time, "version": "platform:python_version", "long": lambda: "m" * 1_000_000}, default_kind="compile_error")


main()
