#!/bin/sh
# Install agentd for the user who runs this, or upgrade it in place: sessions, keys and settings stay.
# PYTHON names the interpreter to build on. Nothing outside the user's own folders is touched.
set -eu

source=$(cd "$(dirname "$0")/.." && pwd)
data=${XDG_DATA_HOME:-$HOME/.local/share}
config=${XDG_CONFIG_HOME:-$HOME/.config}
state=${XDG_STATE_HOME:-$HOME/.local/state}/agentd
environment=$data/agentd/venv
commands=$HOME/.local/bin
units=$config/systemd/user

say() { printf '%s\n' "$*"; }

"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "agentd needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$environment/bin/python" -m pip install --quiet --upgrade --force-reinstall --no-deps "$source/client" "$source"
"$environment/bin/python" -m pip install --quiet "$source/client[async,cli]" "$source"
say "installed   $("$environment/bin/agentd" --version) in $environment"

mkdir -p "$commands"
for command in agentd agentctl; do
    ln -sfn "$environment/bin/$command" "$commands/$command"
    say "linked      $commands/$command"
done
case ":$PATH:" in
    *":$commands:"*) ;;
    *) say "note        $commands is not in your PATH" ;;
esac

complete() { # shell file
    mkdir -p "$(dirname "$2")"
    "$environment/bin/agentctl" completion "$1" >"$2"
    say "completion  $2"
}
complete bash "$data/bash-completion/completions/agentctl"
complete zsh "$data/zsh/site-functions/_agentctl"
complete fish "$config/fish/completions/agentctl.fish"

# The unit may write to these two folders only, so they must be there before it starts.
mkdir -p "$state"
chmod 700 "$state"
mkdir -p "$units"
cp "$source/systemd/agentd.socket" "$units/agentd.socket"
sed -e "s|@PYTHON@|$environment/bin/python|g" -e "s|@STATE@|$state|g" \
    "$source/systemd/agentd.service" >"$units/agentd.service"
say "units       $units/agentd.socket, agentd.service"

if systemctl --user is-system-running >/dev/null 2>&1 || systemctl --user list-units >/dev/null 2>&1; then
    systemctl --user daemon-reload
    systemctl --user enable --quiet --now agentd.socket
    systemctl --user try-restart agentd.service
    say "enabled     agentd.socket: the first connection starts the agent"
else
    say "note        no user manager answers; later: systemctl --user enable --now agentd.socket"
fi
say "note        the agent ends with your last login session and starts with the next; to keep it"
say "            running (cron, servers): loginctl enable-linger"
say "next        agentctl login"
