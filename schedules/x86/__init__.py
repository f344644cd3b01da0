"""x86: register tiles of vectors, written against axis roles."""
