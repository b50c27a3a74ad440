#!/bin/sh
# Makes .venv, or brings it up to date: the package in editable form, and the named dependency groups of pyproject.toml.
# usage: tools/setup_venv.sh GROUP…
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.11 to 3.14 was found: install one, or name it: make PYTHON=/path/to/python3.12 …" >&2
    exit 1
}

if ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    echo "making .venv with $("$python" --version)"
    if command -v uv >/dev/null && uv venv --quiet --clear --python "$python" .venv; then
        uv pip install --quiet --python .venv/bin/python 'uv>=0.9'
    else
        "$python" -c 'import ensurepip' 2>/dev/null || tools/debian_packages.sh python3-venv
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
    fi
fi

groups=
for group in "$@"; do groups="$groups --group $group"; done
echo "installing the package and:$groups"
# shellcheck disable=SC2086
.venv/bin/uv pip install --quiet --python .venv/bin/python --editable '.[docker]' $groups
for group in "$@"; do touch ".venv/.with-$group"; done
