#!/bin/sh
# Pictures of a report page in Chromium, light and dark, on a desk and on a phone; fails if the page logs to the console.
#   cargo run -p soup-report --example render -- crates/soup-report/tests/data/greedy.json /tmp/greedy.html
#   tests/report/screenshot.sh /tmp/greedy.html /tmp/pictures [HEIGHT]
# Needs Debian's chromium. Headless windows are at least 500 px wide, so the phone's page is put into a frame of 420 px.
set -eu
page=$(readlink -f "$1")
mkdir -p "$2"
out=$(readlink -f "$2")
height=${3:-5200}
name=$(basename "$page" .html)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '<!DOCTYPE html><style>body{margin:0}iframe{border:0;width:420px;height:%spx}</style><iframe src="file://%s"></iframe>' \
    "$((height * 2))" "$page" >"$work/phone.html"

# picture NAME SCHEME WIDTH HEIGHT FILE; the schemes are 0 dark, 1 light.
picture() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" \
        --blink-settings=preferredColorScheme="$2" --enable-logging=stderr --v=0 --allow-file-access-from-files \
        --window-size="$3,$4" --screenshot="$out/$1.png" "file://$5" 2>"$work/log"
    if grep CONSOLE "$work/log"; then
        echo "$1: the page wrote to the console" >&2
        exit 1
    fi
}
picture "$name-light" 1 1200 "$height" "$page"
picture "$name-dark" 0 1200 "$height" "$page"
picture "$name-phone" 1 500 "$((height * 2))" "$work/phone.html"
ls "$out"
