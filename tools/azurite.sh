#!/bin/sh
# Installs Azurite, Microsoft's emulator of Blob Storage, for the tests: once for all checkouts of a user.
set -eu
cd "$(dirname "$0")/.."

folder=$HOME/.cache/stepops-tests/azurite
[ ! -x "$folder/node_modules/.bin/azurite-blob" ] || exit 0
command -v npm >/dev/null || tools/debian_packages.sh npm
echo "installing Azurite"
npm install --silent --no-audit --no-fund --prefix "$folder" azurite@3
