"""Settings come from the environment. A service that lacks one says so at once, and does not start."""

import logging
import os
import sys


def required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"set {name}")
    return value


def optional(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


def log() -> None:
    """Logs to stderr, as containers do."""
    level = optional("LOG_LEVEL", "INFO")
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
