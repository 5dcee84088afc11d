"""What a knowledge base is, and which one the settings ask for."""

from typing import Protocol

import boto3
from pydantic import BaseModel

from common import settings
from common.transcripts import Bucket


class Source(BaseModel):
    """A place in a video."""

    video: str
    start: int
    text: str


class Answer(BaseModel):
    text: str
    sources: list[Source]


class KnowledgeBase(Protocol):
    def ask(self, question: str) -> Answer: ...


def from_settings() -> KnowledgeBase:
    """Bedrock where `KB_ID` names a knowledge base of it; else a search of the transcripts in the bucket."""
    if knowledge_base := settings.optional("KB_ID"):
        from .bedrock import Bedrock

        return Bedrock(boto3.client("bedrock-agent-runtime"), knowledge_base, settings.required("MODEL_ARN"))
    from .search import Search

    return Search(Bucket(boto3.client("s3"), settings.required("BUCKET")))
