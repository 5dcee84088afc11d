"""A knowledge base without a model: the passages of the transcripts that have the rarest words of a question."""

import math
import re
from collections import Counter

from common.transcripts import Bucket, Transcript

from .knowledge import Answer, Source

# How many lines of a transcript make a passage, and how many passages are shown.
PASSAGE = 3
SHOWN = 3

_WORD = re.compile(r"\w+")


def words(text: str) -> set[str]:
    """The words of a text, without their commonest endings."""
    found = (word.casefold() for word in _WORD.findall(text))
    return {re.sub(r"(?<=\w{3})(ing|ed|es|s)$", "", word) for word in found if len(word) > 2}


def passages(transcript: Transcript) -> list[Source]:
    """Cuts a transcript into passages that overlap."""
    lines = transcript.lines
    found = []
    for at in range(0, max(len(lines) - PASSAGE + 1, 1)):
        part = lines[at : at + PASSAGE]
        if part:
            text = " ".join(line.text for line in part)
            found.append(Source(video=transcript.video, start=part[0].start, text=text))
    return found


class Search:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        # By video: the mark of its transcript, and its passages with their words.
        self._known: dict[str, tuple[str, list[tuple[Source, set[str]]]]] = {}

    def ask(self, question: str) -> Answer:
        self._refresh()
        all_passages = [it for _, found in self._known.values() for it in found]
        counts = Counter(word for _, has in all_passages for word in has)
        wanted = words(question)

        def score(has: set[str]) -> float:
            return sum(math.log(1 + len(all_passages) / counts[word]) for word in wanted & has)

        ranked = sorted(all_passages, key=lambda it: score(it[1]), reverse=True)
        best: list[Source] = []
        for source, has in ranked:
            # Passages overlap: what is next to a better one says nothing new.
            near = any(it.video == source.video and abs(it.start - source.start) < 30 for it in best)
            if len(best) < SHOWN and not near and score(has) > 0:
                best.append(source)
        if not best:
            return Answer(text="Nothing in the videos answers that.", sources=[])
        return Answer(text=best[0].text, sources=best)

    def _refresh(self) -> None:
        """Reads the transcripts that are new or have changed."""
        listed = dict(self._bucket.videos())
        self._known = {video: it for video, it in self._known.items() if listed.get(video) == it[0]}
        for video, mark in listed.items():
            if video not in self._known:
                found = passages(self._bucket.get(video))
                self._known[video] = (mark, [(it, words(it.text)) for it in found])
