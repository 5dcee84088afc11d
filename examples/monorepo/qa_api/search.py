"""Finds the passage of a transcript that shares the most words with a question."""

import re

WORD = re.compile(r"\w+")


def words(text: str) -> set[str]:
    return {word.lower() for word in WORD.findall(text)}


def best_passage(transcript: str, question: str) -> str:
    wanted = words(question)
    passages = [passage.strip() for passage in transcript.split("\n\n") if passage.strip()]
    return max(passages, key=lambda passage: len(wanted & words(passage)), default="")
