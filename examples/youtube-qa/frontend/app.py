"""The page: takes the addresses of videos, puts them on the queue, and asks qa-api questions about them."""

import json

import boto3
import requests
from botocore.exceptions import BotoCoreError, ClientError
from flask import Flask, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from common import settings
from common.transcripts import video_of

settings.log()
QUEUE_URL = settings.required("QUEUE_URL")
QA_API_URL = settings.required("QA_API_URL").rstrip("/")
# Seconds that an answer may take.
PATIENCE = 60

app = Flask(__name__)
queue = boto3.client("sqs")


@app.get("/")
def index() -> str:
    return render_template("index.html", queued=request.args.get("queued"))


@app.post("/videos")
def submit() -> Response | tuple[str, int]:
    address = request.form.get("address", "")
    video = video_of(address)
    if video is None:
        error = "That is no address of a YouTube video."
        return render_template("index.html", address=address, error=error), 400
    try:
        queue.send_message(QueueUrl=QUEUE_URL, MessageBody=json.dumps({"video": video}))
    except (BotoCoreError, ClientError) as problem:
        app.logger.error("the queue does not take %s: %s", video, problem)
        error = "The video cannot be taken now. Try again later."
        return render_template("index.html", address=address, error=error), 503
    # Loading the page again must not submit the video again.
    return redirect(url_for("index", queued=video), 303)


@app.post("/ask")
def ask() -> str | tuple[str, int]:
    question = request.form.get("question", "").strip()
    if not question:
        return render_template("index.html", error="Ask something."), 400
    try:
        reply = requests.post(f"{QA_API_URL}/ask", json={"question": question}, timeout=PATIENCE)
        reply.raise_for_status()
        answer = reply.json()
    except requests.RequestException as problem:
        app.logger.error("qa-api gives no answer: %s", problem)
        error = "There is no answer now. Try again later."
        return render_template("index.html", question=question, error=error), 502
    return render_template("index.html", question=question, answer=answer)


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
