"""Takes jobs from a folder, one by one, and leaves transcripts in another."""

import json
import logging
import signal
import threading
from pathlib import Path

from common import log, settings
from ingestor.health import BEAT

logger = logging.getLogger("ingestor")
stop = threading.Event()


def fetch_transcript(video: str) -> str:
    """Stands for the slow part: a real service would ask a provider of transcripts."""
    return f"This is what was said in {video}.\n"


def work(queue: Path) -> None:
    for folder in ("new", "done", "failed"):
        (queue / folder).mkdir(parents=True, exist_ok=True)
    while not stop.is_set():
        for job in sorted((queue / "new").glob("*.json")):
            run(queue, job)
            if stop.is_set():
                break
        BEAT.touch()
        stop.wait(1.0)


def run(queue: Path, job: Path) -> None:
    try:
        video = json.loads(job.read_text(encoding="utf-8"))["video"]
        (queue / "done" / f"{job.stem}.txt").write_text(fetch_transcript(video), encoding="utf-8")
    except (OSError, ValueError, KeyError):
        logger.exception("job %s failed", job.name)
        job.rename(queue / "failed" / job.name)
        return
    job.unlink()
    logger.info("job %s is done", job.name)


def main() -> None:
    config = settings.load()
    log.setup(config.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    work(Path(config.queue_dir))


if __name__ == "__main__":
    main()
