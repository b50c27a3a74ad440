"""Runs the flights example through a real Airflow: what ``make demo`` does."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from pathlib import Path

from airflow_stepops.cli.summary import summary
from airflow_stepops.client import Client
from tools.airflow_home import LOGIN, PASSWORD, AirflowStartError, LocalAirflow, free_port, running_airflow
from tools.run_report import Progress, failed_logs

CHECKOUT = Path(__file__).resolve().parent.parent
DAG_ID = "flight_delays"
USUAL_PORT = 8080
RUN_SECONDS = 900


def main() -> int:
    """Start Airflow, run the example, show what happened; return the exit code."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = arguments.port or (USUAL_PORT if _is_free(USUAL_PORT) else free_port())
    print("Starting Airflow: api-server, scheduler, DAG processor, triggerer (about 20 seconds) …", flush=True)
    started = time.monotonic()
    try:
        with running_airflow(CHECKOUT / ".demo" / "airflow", CHECKOUT / "dags_examples", port=port) as airflow:
            print(f"Airflow is up after {time.monotonic() - started:.0f} s.")
            state = _run_example(airflow)
            if not arguments.once:
                _stay_up(airflow)
            print("Stopping Airflow …", flush=True)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except AirflowStartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if state == "success" else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop Airflow after the run")
    parser.add_argument("--port", type=int, help=f"of the UI; default: {USUAL_PORT}, or a free one when that is taken")
    return parser


def _run_example(airflow: LocalAirflow) -> str:
    """Run the DAG to its end and print what happened; return the run's state."""
    client = airflow.client
    airflow.wait_for_dag(DAG_ID)
    client.unpause(DAG_ID)
    client.end_unfinished_runs(DAG_ID)
    run_id = client.trigger(DAG_ID)
    print(_address(airflow, run_id), "", f"Run {run_id}:", sep="\n", flush=True)
    progress = Progress(client, DAG_ID, run_id)
    state = client.wait(DAG_ID, run_id, timeout=RUN_SECONDS, look=progress.look)
    instances = client.task_instances(DAG_ID, run_id)
    os.environ.update(airflow.environment)  # so that the client reads the stacks that this Airflow has
    print("", summary(Client().get_run(DAG_ID, run_id)), sep="\n", flush=True)
    if state != "success":
        print(failed_logs(client, DAG_ID, run_id, instances), flush=True)
    return state


def _address(airflow: LocalAirflow, run_id: str) -> str:
    return (
        f"  UI:     {airflow.url}\n"
        f"  login:  {LOGIN}, password: {PASSWORD}\n"
        f"  DAG:    {airflow.url}/dags/{DAG_ID}/runs/{run_id}"
    )


def _stay_up(airflow: LocalAirflow) -> None:
    """Wait for Ctrl-C."""
    print(f"Airflow stays up at {airflow.url} (login {LOGIN}, password {PASSWORD}). Ctrl-C stops it.", flush=True)
    try:
        while True:
            time.sleep(2)
            airflow.check()
    except KeyboardInterrupt:
        print()


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    sys.exit(main())
