"""Making libraries: link compiled kernels, describe them, write them so that they can be checked."""
