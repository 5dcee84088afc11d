"""The API: answers questions from a knowledge base."""

from functools import cache
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field

from common import settings

from .knowledge import Answer, KnowledgeBase, from_settings

settings.log()
app = FastAPI(title="qa-api")


class Question(BaseModel):
    question: str = Field(min_length=1, max_length=1000)


@cache
def knowledge_base() -> KnowledgeBase:
    return from_settings()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/ask")
def ask(question: Question, knowledge: Annotated[KnowledgeBase, Depends(knowledge_base)]) -> Answer:
    return knowledge.ask(question.question)
