"""Settings, read from the environment once."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    queue_dir: str
    api_url: str
    log_level: str


def load() -> Settings:
    return Settings(
        queue_dir=os.environ.get("QUEUE_DIR", "/var/lib/queue"),
        api_url=os.environ.get("API_URL", "http://qa-api:8000"),
        log_level=os.environ.get("LOG_LEVEL", "INFO"),
    )
