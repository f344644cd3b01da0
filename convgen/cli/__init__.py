"""The command line. Each verb is one function in one of these files and calls the same functions as Python users do."""

from .main import main

__all__ = ["main"]
