"""Child processes that may crash, hang or be killed without harming the caller (compiling and measuring).

Fault isolation, not a security boundary: a child runs with the caller's rights.
"""

from .parent import Worker, default_memory_limit

__all__ = ["Worker", "default_memory_limit"]
