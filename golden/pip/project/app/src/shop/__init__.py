"""A shop."""

__version__ = "1.2.0"


def main():
    print("open", __version__)
