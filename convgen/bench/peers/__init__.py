"""Contestants' code, run in worker processes: each module has functions that make one workload ready to be called.

A function takes a `convgen.bench.case.Case` and options, and returns a `Ready`. It may raise anything: the message is reported in
place of the contestant's time.
"""
