"""What all need.

More of it.
"""

__version__ = "0.3"
