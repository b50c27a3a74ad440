#!/bin/sh
# Runs the tests of what meets Airflow itself with another version of it, in a venv of its own, .venv-airflow-VERSION.
# usage: tools/test_airflow.sh VERSION [argument of pytest]…
set -eu
cd "$(dirname "$0")/.."

version=${1:?"which version of Airflow? such as 3.1"}
shift
venv=.venv-airflow-$version

if [ ! pyproject.toml -ot "$venv/.made" ]; then
    echo "making $venv with Airflow $version"
    .venv/bin/uv venv --quiet --clear --python .venv/bin/python "$venv"
    # Airflow sets no upper bounds; its 3.2 does not work with what FastAPI and Starlette brought later.
    .venv/bin/uv pip install --quiet --python "$venv/bin/python" --editable '.[docker]' --group test \
        "apache-airflow==$version.*" 'fastapi<0.137' 'starlette<1'
    touch "$venv/.made"
fi

if [ $# = 0 ]; then
    set -- tests/dag tests/operators tests/jobs tests/scheduler tests/examples -k 'not engine and not another_stack and not hundred_thousand' \
        --ignore tests/operators/test_retries.py
fi
exec "$venv/bin/python" -m pytest "$@"
