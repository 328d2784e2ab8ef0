"""A service that checks itself by the clock. No scheduler runs in it: isopod.toml says what is done
when, and isopod asks for it, also while nobody uses the app.
"""

from datetime import UTC, datetime

from flask import Flask, abort, request

app = Flask(__name__)


@app.get("/")
def index():
    return "I check myself every five minutes: `isopod jobs runs flask-jobs`\n"


@app.post("/jobs/check")
def check():
    if request.headers.get("X-Isopod-Job") != "check":
        abort(404)  # somebody from outside, who cannot have that header
    app.logger.warning("checked at %s", datetime.now(UTC).isoformat(timespec="seconds"))
    return {"checked": True}
