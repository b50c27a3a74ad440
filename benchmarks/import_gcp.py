"""What a triggerer loads to wait for a job of Vertex AI, against what the Google provider's own trigger loads.

Each is loaded in a fresh process that has in memory what every triggerer has. Ours is the whole way to the first
answer: trigger, components, connection with a service account's key, access token, state of a job, lines of its log,
artifact store; Google is a server in the same process. Of the provider's trigger only the module is imported.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROUNDS = 7
STOCK_ROUNDS = 3
MOST_PART = 0.1
#: What no triggerer should load for this.
HEAVY = ("google.cloud.aiplatform", "google.cloud.aiplatform_v1", "googleapiclient", "grpc", "pandas", "numpy")

_STOCK = "airflow.providers.google.cloud.triggers.vertex_ai"
_OF_TRIGGERERS = "airflow.jobs.triggerer_job_runner"
_NAME = "projects/1/locations/europe-west4/customJobs/77"
_JOB = {"name": _NAME, "state": "JOB_STATE_RUNNING", "createTime": "2026-01-01T00:00:00Z"}


def main() -> None:
    """Measure, check, and print one JSON object as the last line."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "STEPOPS_"))},
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "NO_GCE_CHECK": "true",
        }
        # The first round compiles the modules.
        ours = [_child("ours", environment) for _ in range(ROUNDS + 1)][1:]
        stock = [_child("stock", environment) for _ in range(STOCK_ROUNDS + 1)][1:]
    heavy = sorted({name for one in ours for name in one["heavy"]})
    our_ms, stock_ms = (statistics.median(one["seconds"] for one in measured) * 1000 for measured in (ours, stock))
    print(
        f"ours {our_ms:.0f} ms and {_median_mb(ours)} MB, the provider's {stock_ms:.0f} ms and {_median_mb(stock)} MB"
    )
    failed = bool(heavy) or our_ms > stock_ms * MOST_PART
    if failed:
        print(f"OVER THE LIMITS: {MOST_PART:.0%} of the provider's trigger, no heavy module; loaded: {heavy}")
    figures = {"name": "import_gcp", "ms_over_airflow": round(our_ms, 1), "stock_trigger_ms": round(stock_ms, 1)}
    print(json.dumps(figures))
    sys.exit(failed)


def _median_mb(measured: list[dict[str, Any]]) -> int:
    return round(statistics.median(one["mb"] for one in measured))


def _child(what: str, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "benchmarks.import_gcp", what]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _load_stock() -> None:
    __import__(_STOCK)


def _load_ours() -> None:
    from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
    from airflow_stepops.stacks.flavors import component_from_document
    from airflow_stepops.triggers.job import JobTrigger

    settings = {"flavor": "vertex", "region": "europe-west4", "connection": "google"}
    store = {"flavor": "gcs", "bucket": "values", "connection": "google"}
    JobTrigger(entry={}, artifact_store=store, submitted_at=time.time())
    service = component_from_document(StepOperatorComponent, settings).connect()
    assert service.describe("77").id == "77"
    assert service.logs("77").lines == []
    component_from_document(ArtifactStoreComponent, store).open()


class _Google(BaseHTTPRequestHandler):
    """Gives tokens, the state of one job, and an empty log."""

    def do_POST(self) -> None:
        """Answer with a token, or with no entries."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._say(
            {"access_token": "ya29.t", "expires_in": 3600, "token_type": "Bearer"} if "token" in self.path else {}
        )

    def do_GET(self) -> None:
        """Answer with the job."""
        self._say(_JOB)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _say(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _connection(google: str) -> str:
    """Return an Airflow connection with the key of a service account."""
    made = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    key = {
        "type": "service_account",
        "project_id": "measured",
        "private_key_id": "1",
        "private_key": subprocess.run(made, capture_output=True, check=True, text=True).stdout,
        "client_email": "worker@measured.iam.gserviceaccount.com",
        "token_uri": f"{google}/token",
    }
    places = dict.fromkeys(("aiplatform", "logging", "storage"), google)
    extra = {"keyfile_dict": key, "api_endpoint_overrides": places}
    return json.dumps({"conn_type": "google_cloud_platform", "extra": extra})


def _measure(what: str) -> dict[str, Any]:
    __import__(_OF_TRIGGERERS)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Google) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        os.environ["AIRFLOW_CONN_GOOGLE"] = _connection(f"http://127.0.0.1:{server.server_port}")
        before, memory = set(sys.modules), _resident_mb()
        started = time.perf_counter()
        _load_ours() if what == "ours" else _load_stock()
        seconds = time.perf_counter() - started
        server.shutdown()
    loaded = set(sys.modules) - before
    return {"seconds": seconds, "mb": _resident_mb() - memory, "heavy": sorted(loaded & set(HEAVY))}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(_measure(sys.argv[1])))
    else:
        main()
