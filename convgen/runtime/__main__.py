"""`python -m convgen.runtime check LIBRARY`: a health check for containers. Exit code 0 healthy, 1 not, 2 usage."""

from __future__ import annotations

import argparse
import sys

from convgen.errors import Error


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m convgen.runtime", description="Check a convgen library on this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check", help="verify every file, load the library and run each kernel once on guarded buffers")
    check.add_argument("path", metavar="LIBRARY")
    check.add_argument("--sha256", help="the sha256 that the library must have")
    options = parser.parse_args(arguments)

    from convgen.runtime.library import open_unregistered

    try:
        library = open_unregistered(options.path, expect_sha256=options.sha256)
        findings = library.selftest()
    except Error as error:
        print(f"convgen: {error}", file=sys.stderr)
        return 1
    served = " and ".join(dict.fromkeys(server.choice.target for server in library._servers.made()))
    print(f"{options.path}: {len(findings)} kernels of {served} are healthy, sha256 {library.sha256}")
    for reason in library._servers.refusals():
        print(f"{options.path}: CUDA variants not checked: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
