"""Measuring on other machines, through TVM's RPC tracker and servers.

The user's process builds candidates and decides; a worker process per server holds TVM's client; the board runs `convgen device
serve` (or TVM's own server), which needs no compiler. A connection is remote code execution on the board: trusted networks only.
"""
