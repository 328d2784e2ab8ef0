"""A sales report computed with pandas, as HTML and JSON. Natively: `flask run`."""

from pathlib import Path

import pandas as pd
from flask import Flask
from flask.typing import ResponseReturnValue

SALES = Path(__file__).with_name("sales.csv")

app = Flask(__name__)


def report() -> pd.DataFrame:
    """Turnover, pieces and the average price of each product, best first."""
    sales = pd.read_csv(SALES, parse_dates=["day"])
    sales["turnover"] = sales["pieces"] * sales["price"]
    totals = sales.groupby("product").agg(pieces=("pieces", "sum"), turnover=("turnover", "sum"))
    totals["average_price"] = totals["turnover"] / totals["pieces"]
    return totals.round(2).sort_values("turnover", ascending=False)


@app.get("/")
def page() -> ResponseReturnValue:
    return f"<!doctype html><title>Sales</title><h1>Sales</h1>{report().to_html()}\n"


@app.get("/report.json")
def data() -> ResponseReturnValue:
    return report().to_json(orient="index"), {"content-type": "application/json"}
