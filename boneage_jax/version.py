"""The version of the package, in a module that imports nothing: weights files and reports name it."""

__version__ = "0.1.0"
