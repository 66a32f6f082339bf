"""The version, below all rooms: the top package itself is imported by none of them."""

__version__ = "0.3.0"
