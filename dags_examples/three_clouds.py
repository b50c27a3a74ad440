"""The same model trained on three clouds in one run: each step names its stack, and the worker compares.

The flights are read once; the worker copies them into the store of each cloud. The stacks are in ``stepops.yaml``
beside this file.
"""

from __future__ import annotations

from typing import Any

from late_arrivals import SKLEARN, load

from airflow_stepops.dag import pipeline, step


@step(step_operator=True, image=SKLEARN, environment={"OMP_NUM_THREADS": "1"}, timeout="30m")
def train_and_score(flights: Any, learning_rate: float) -> dict[str, Any]:
    """Fit a model to the flights up to September, and score it on the later ones."""
    from late_arrivals import KNOWN
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    seen, unseen = flights[flights["month"] <= 9], flights[flights["month"] > 9]
    model = HistGradientBoostingClassifier(learning_rate=learning_rate, max_iter=50, random_state=0)
    model.fit(seen[KNOWN], seen["late"])
    auc = roc_auc_score(unseen["late"], model.predict_proba(unseen[KNOWN])[:, 1])
    return {"flights": len(flights), "auc": round(float(auc), 6)}


@step
def compare(scores: dict[str, dict[str, Any]]) -> bool:
    """Say whether all clouds found the same."""
    for cloud, score in scores.items():
        print(f"{cloud}: AUC {score['auc']} on {score['flights']:,} flights")
    return len({score["auc"] for score in scores.values()}) == 1


@pipeline(stack="aws", tags=["stepops", "example", "aws", "gcp", "azure"], doc_md=__doc__)
def three_clouds(airport: str = "JFK", learning_rate: float = 0.1) -> None:
    """One step on each cloud."""
    flights = load(airport)
    on = {
        cloud: train_and_score.override(name=f"on_{cloud}", stack=cloud)(flights, learning_rate)
        for cloud in ("aws", "gcp", "azure")
    }
    compare(on)
