#!/usr/bin/env bash
# Runs the checks of every store (crates/soup-store/src/conformance.rs) against moto, an S3 service that others wrote: a second
# opinion beside the service in the tests' own process.
#
#   tests/stores/moto.sh
#
# Needs python3 with venv, cargo, and PyPI or a mirror of it. Installs into a temporary folder and leaves nothing behind. Takes
# half a minute once soup-store's tests are built. Exit status: that of the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
server=
stop() {
    if [[ -n $server ]]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap stop EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[server]==5.*'

# Port 0 lets the system choose; moto's own command cannot, so its application is served directly. Requests are answered one
# after the other: moto looks whether an object exists and then writes it, which is no guarantee when two do so at once.
cat > "$work/serve.py" <<'PYTHON'
import os
import sys

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
with open(sys.argv[1] + ".new", "w") as port:
    port.write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
PYTHON
"$work/venv/bin/python" "$work/serve.py" "$work/port" > "$work/log" 2>&1 &
server=$!
for _ in $(seq 300); do
    [[ -s $work/port ]] && break
    if ! kill -0 "$server" 2>/dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
    sleep 0.1
done
endpoint=http://127.0.0.1:$(cat "$work/port")

# Any signature is accepted.
python3 -c 'import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method="PUT"))' "$endpoint/soup-test"
SOUP_TEST_S3="$endpoint,soup-test,any,any" \
    cargo test --locked -p soup-store --lib -- --ignored --exact conformance::s3::s3_elsewhere
