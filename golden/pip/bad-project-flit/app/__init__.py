"""An app."""

from .version import __version__
