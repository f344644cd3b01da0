"""Making libraries: link compiled kernels, describe them, write them so that they can be checked.

The public function `convgen.export` is calling this room.
"""

from ..rooms import callable_room

callable_room(__name__)
