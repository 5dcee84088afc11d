"""A knowledge base of Amazon Bedrock that has the bucket of transcripts as its source."""

from typing import Any

from common.transcripts import SUFFIX, Transcript

from .knowledge import Answer, Source


class Bedrock:
    def __init__(self, client: Any, knowledge_base: str, model: str) -> None:
        self._client = client
        self._wanted = {
            "type": "KNOWLEDGE_BASE",
            "knowledgeBaseConfiguration": {"knowledgeBaseId": knowledge_base, "modelArn": model},
        }

    def ask(self, question: str) -> Answer:
        reply = self._client.retrieve_and_generate(
            input={"text": question}, retrieveAndGenerateConfiguration=self._wanted
        )
        cited = (it for citation in reply.get("citations", []) for it in citation["retrievedReferences"])
        return Answer(text=reply["output"]["text"], sources=[_source(it) for it in cited])


def _source(reference: dict[str, Any]) -> Source:
    uri = reference.get("location", {}).get("s3Location", {}).get("uri", "")
    video = uri.rsplit("/", 1)[-1].removesuffix(SUFFIX)
    text = reference["content"]["text"]
    lines = Transcript.parse(video, text).lines
    if not lines:
        return Source(video=video, start=0, text=text)
    return Source(video=video, start=lines[0].start, text=" ".join(line.text for line in lines))
