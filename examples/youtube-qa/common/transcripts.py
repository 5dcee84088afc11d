"""Transcripts of videos, and how they lie in the bucket: one text file for each video, one line for each thing said.

    [75] a line of the transcript, said 75 seconds after the beginning

People can read that, and so can a Bedrock knowledge base that has the bucket as its source.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PREFIX = "transcripts/"
SUFFIX = ".txt"

_LINE = re.compile(r"\[(\d+)\] (.+)")
_VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
_ADDRESS = re.compile(r"https?://(?:www\.|m\.)?(?:youtu\.be/|youtube\.com/(?:watch\?(?:.*&)?v=|shorts/|live/))([^&?#/]+)")


@dataclass(frozen=True)
class Line:
    """Something that is said in a video."""

    start: int
    text: str


@dataclass(frozen=True)
class Transcript:
    """What is said in a video."""

    video: str
    lines: tuple[Line, ...]

    @classmethod
    def parse(cls, video: str, text: str) -> "Transcript":
        """Reads the text of a file."""
        found = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
        return cls(video, tuple(Line(int(it[1]), it[2]) for it in found if it))

    def text(self) -> str:
        """The text of its file."""
        return "".join(f"[{line.start}] {' '.join(line.text.split())}\n" for line in self.lines)


def video_of(address: str) -> str | None:
    """Returns the name of the video that an address, or the name itself, stands for."""
    found = _ADDRESS.match(address.strip())
    name = found[1] if found else address.strip()
    return name if _VIDEO.fullmatch(name) else None


class Bucket:
    """The transcripts in a bucket of S3."""

    def __init__(self, s3: Any, name: str) -> None:
        self._s3 = s3
        self._name = name

    def put(self, transcript: Transcript) -> None:
        body = transcript.text().encode()
        key = f"{PREFIX}{transcript.video}{SUFFIX}"
        self._s3.put_object(Bucket=self._name, Key=key, Body=body, ContentType="text/plain; charset=utf-8")

    def get(self, video: str) -> Transcript:
        found = self._s3.get_object(Bucket=self._name, Key=f"{PREFIX}{video}{SUFFIX}")
        return Transcript.parse(video, found["Body"].read().decode())

    def videos(self) -> Iterator[tuple[str, str]]:
        """Lists the videos, each with a mark that changes when its transcript does."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=PREFIX)
        for page in pages:
            for entry in page.get("Contents", []):
                if video := video_of(entry["Key"].removeprefix(PREFIX).removesuffix(SUFFIX)):
                    yield video, entry["ETag"]
