"""Where transcripts come from: YouTube, or a folder with files."""

from pathlib import Path
from typing import Protocol

from common import settings
from common.transcripts import SUFFIX, Line, Transcript


class NoTranscript(Exception):
    """A video has no transcript, and will have none."""


class Transcripts(Protocol):
    def fetch(self, video: str) -> Transcript: ...


class Folder:
    """Files `VIDEO.txt`, in the form that they have in the bucket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, video: str) -> Transcript:
        try:
            text = (self._path / f"{video}{SUFFIX}").read_text("utf-8")
        except FileNotFoundError as error:
            raise NoTranscript(f"{self._path} has none of {video}") from error
        return Transcript.parse(video, text)


class YouTube:
    def __init__(self, languages: list[str]) -> None:
        from youtube_transcript_api import YouTubeTranscriptApi

        self._api = YouTubeTranscriptApi()
        self._languages = languages

    def fetch(self, video: str) -> Transcript:
        from youtube_transcript_api import NoTranscriptFound, TranscriptsDisabled, VideoUnavailable

        try:
            found = self._api.fetch(video, languages=self._languages)
        except (NoTranscriptFound, TranscriptsDisabled, VideoUnavailable) as error:
            raise NoTranscript(str(error)) from error
        return Transcript(video, tuple(Line(int(it.start), it.text) for it in found))


def from_settings() -> Transcripts:
    """A folder where `TRANSCRIPTS_DIR` names one; else YouTube."""
    if folder := settings.optional("TRANSCRIPTS_DIR"):
        return Folder(Path(folder))
    return YouTube(settings.optional("LANGUAGES", "en").split(","))
