"""What a wave brings to a device that has Python's standard library and nothing else.

The modules of this room import each other, `tune.timing` and `runtime.cpu` only; `wave.bundle` joins them into the one script `run.py`. The host uses the
same code to make the inputs and references, so that both sides mean the same bytes. Python 3.8 and later.
"""
