"""A Flask app that asks an HTTPS API, with the `requests` library and a key that is a secret.

Natively: `API_URL=... API_KEY=... flask run`. On isopod: `isopod secrets set rates API_KEY`, then
`isopod deploy --name rates`; `isopod.toml` says which API it may reach.
"""

import os

import requests
from flask import Flask, abort, jsonify

app = Flask(__name__)
# One for all requests: connections to the API are kept open between them.
api = requests.Session()


@app.get("/")
def about():
    return "Ask for /rates/EUR\n"


@app.get("/rates/<currency>")
def rates(currency: str):
    try:
        answer = api.get(
            f"{os.environ['API_URL']}/v1/latest",
            params={"base": currency},
            # Read here, and not when the app is imported: see docs/secrets.md.
            headers={"Authorization": f"Bearer {os.environ['API_KEY']}"},
            timeout=10,
        )
        answer.raise_for_status()
    except requests.exceptions.HTTPError as error:
        abort(502, f"the API answered {error.response.status_code}")
    except requests.exceptions.RequestException as error:
        abort(502, f"{type(error).__name__}: {error}")
    return jsonify(base=currency, rates=answer.json()["rates"])
