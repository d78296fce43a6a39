#!/bin/sh
# The commands from start to stop, in a scratch folder: start, log in, verify, reset, verify again, log out, stop.
# Every step is checked; the first that goes wrong ends the demo with an exit status other than 0.
set -eu

scratch=$(mktemp -d)
agent=
finish() {
    status=$?
    [ -z "$agent" ] || kill "$agent" 2>/dev/null || true
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT INT TERM

unset AGENTD_SOCKET AGENTD_TOKEN AGENTD_SESSION_TOKEN_PATH XDG_CONFIG_HOME
export HOME="$scratch" XDG_STATE_HOME="$scratch/state" XDG_RUNTIME_DIR="$scratch/run"
mkdir -m 700 "$XDG_RUNTIME_DIR"

step() { printf '\n$ %s\n' "$*"; "$@"; }
refused() { # expected-status command...
    expected=$1; shift
    printf '\n$ %s\n' "$*"
    status=0; "$@" || status=$?
    [ "$status" -eq "$expected" ] || { echo "demo: expected exit status $expected, got $status"; exit 1; }
    printf '(exit status %s)\n' "$status"
}

printf '$ agentd serve &\n'
agentd serve &
agent=$!

step agentctl --timeout 10 login --label demo --expiry 30m
step agentctl verify
token=$(agentctl token)
step agentctl inspect
step agentctl status

echo; echo '# Another program verifies a token that it received:'
printf '$ printf %%s "$TOKEN" | agentctl verify -\n'
printf '%s' "$token" | agentctl verify -

echo; echo '# Resetting the key ends every session at once:'
step agentctl reset-key --yes
refused 1 agentctl verify

step agentctl login --label 'after the reset'
step agentctl verify
step agentctl logout
refused 1 agentctl verify

echo; echo '# The agent stops and removes its socket:'
kill -TERM "$agent"
wait "$agent"
agent=
[ ! -e "$XDG_RUNTIME_DIR/agentd/agent.sock" ] || { echo 'demo: the socket still exists'; exit 1; }
refused 69 agentctl --timeout 0.2 verify
echo; echo 'demo: every step succeeded'
