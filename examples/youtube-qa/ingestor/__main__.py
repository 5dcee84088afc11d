"""The worker: takes videos off the queue, and puts their transcripts into the bucket."""

import json
import logging
import signal
import threading
from typing import Any

import boto3

from common import settings
from common.transcripts import Bucket, video_of

from . import health
from .sources import NoTranscript, Transcripts, from_settings

log = logging.getLogger("ingestor")
# Seconds that a request for work stays open.
WAIT = 10


def handle(body: str, transcripts: Transcripts, bucket: Bucket) -> None:
    """Does what a message asks for."""
    video = video_of(json.loads(body)["video"])
    if video is None:
        raise ValueError("no name of a video")
    transcript = transcripts.fetch(video)
    bucket.put(transcript)
    log.info("stored the transcript of %s: %d lines", video, len(transcript.lines))


def work(queue: Any, url: str, transcripts: Transcripts, bucket: Bucket, stop: threading.Event) -> None:
    while not stop.is_set():
        health.beat()
        reply = queue.receive_message(QueueUrl=url, WaitTimeSeconds=WAIT, MaxNumberOfMessages=1)
        for message in reply.get("Messages", []):
            try:
                handle(message["Body"], transcripts, bucket)
            except (ValueError, KeyError, TypeError, NoTranscript) as error:
                # It would be the same the next time.
                log.error("left out %s: %s", message["Body"], error)
            except Exception:
                # The queue gives it out again, and at last to its dead-letter queue.
                log.exception("failed at %s", message["Body"])
                continue
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def main() -> None:
    settings.log()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # The message at hand is finished first.
        signal.signal(number, lambda *_: stop.set())
    bucket = Bucket(boto3.client("s3"), settings.required("BUCKET"))
    work(boto3.client("sqs"), settings.required("QUEUE_URL"), from_settings(), bucket, stop)


if __name__ == "__main__":
    main()
