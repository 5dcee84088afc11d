"""A form that asks a question about a video, and shows the answer."""

import httpx
from flask import Flask, render_template, request

from common import log, settings

config = settings.load()
log.setup(config.log_level)
app = Flask(__name__)


@app.get("/")
def index():
    return render_template("index.html", answer=None)


@app.post("/")
def ask():
    question = {"video": request.form["video"], "question": request.form["question"]}
    try:
        reply = httpx.post(f"{config.api_url}/answers", json=question, timeout=30)
        reply.raise_for_status()
    except httpx.HTTPError as error:
        app.logger.warning("no answer: %s", error)
        return render_template("index.html", answer="The service is not there. Try again later."), 502
    return render_template("index.html", answer=reply.json()["answer"])


@app.get("/healthz")
def healthz():
    return {"status": "ok"}
