"""CUDA: every root nest is one launch, its loops bound to blocks and threads; written against axis roles."""
