"""What the families of processors share: register tiles of vectors, written against axis roles."""
