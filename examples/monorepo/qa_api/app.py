"""Answers questions about videos that were read before, and queues those that were not."""

import json
import uuid
from pathlib import Path

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from common import log, settings
from qa_api.search import best_passage

config = settings.load()
log.setup(config.log_level)
app = FastAPI(title="Questions about videos")
queue = Path(config.queue_dir)


class Question(BaseModel):
    video: str
    question: str


@app.post("/answers")
def answer(question: Question) -> dict[str, str]:
    transcript = queue / "done" / f"{question.video}.txt"
    if not transcript.is_file():
        enqueue(question.video)
        raise HTTPException(status_code=202, detail="the video is being read")
    return {"answer": best_passage(transcript.read_text(encoding="utf-8"), question.question)}


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


def enqueue(video: str) -> None:
    # Written under another name first: the ingestor must never see half a job.
    folder = queue / "new"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid.uuid4()}"
    partial.write_text(json.dumps({"video": video}), encoding="utf-8")
    partial.rename(folder / f"{video}.json")
