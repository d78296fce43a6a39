#!/bin/sh
# Undo install.sh. Keys, store and settings stay, unless PURGE=1, which removes every session for good.
set -eu

data=${XDG_DATA_HOME:-$HOME/.local/share}
config=${XDG_CONFIG_HOME:-$HOME/.config}
runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/agentd
environment=$data/agentd/venv
units=$config/systemd/user

say() { printf '%-11s %s\n' "$1" "$2"; }
remove() {
    for path in "$@"; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            rm -rf "$path"
            say removed "$path"
        fi
    done
}

# The settings may name another folder, and only the installed agent can read them.
state=$("$environment/bin/python" -I -c 'from agentd.config import load; print(load().state_path)' \
    2>/dev/null) || state=${XDG_STATE_HOME:-$HOME/.local/state}/agentd

if systemctl --user show-environment >/dev/null 2>&1; then
    systemctl --user --quiet disable agentd.socket agentd-verify.socket 2>/dev/null || true
    systemctl --user stop agentd.socket agentd-verify.socket agentd.service 2>/dev/null || true
    say stopped 'agentd.socket, agentd-verify.socket, agentd.service'
fi
remove "$units/sockets.target.wants/agentd.socket" "$units/sockets.target.wants/agentd-verify.socket" \
    "$units/agentd.socket" "$units/agentd-verify.socket" "$units/agentd.service"
systemctl --user daemon-reload 2>/dev/null || true
systemctl --user reset-failed agentd.socket agentd-verify.socket agentd.service 2>/dev/null || true
for command in agentd agentctl; do
    # Only the links that install.sh made, not commands from elsewhere.
    case "$(readlink "$HOME/.local/bin/$command" || true)" in
        "$environment/"*) remove "$HOME/.local/bin/$command" ;;
    esac
done
remove "$data/bash-completion/completions/agentctl" "$data/zsh/site-functions/_agentctl" \
    "$config/fish/completions/agentctl.fish" "$HOME/.local/share/man/man1/agentctl.1" \
    "$HOME/.local/share/man/man1/agentd.1" "$HOME/.local/share/man/man5/agentd.toml.5" \
    "$HOME/.local/share/man/man7/agentd-protocol.7" "$environment"
rmdir "$data/agentd" 2>/dev/null || true

if [ "${PURGE:-}" = 1 ]; then
    lock=$state/store/agentd.lock
    if [ -e "$lock" ] && ! flock -n "$lock" true; then
        printf 'agentd: an agent still uses %s; stop it, and purge again\n' "$state/store" >&2
        exit 1
    fi
    # By name, not the whole folder: the settings may name one that contains other files.
    remove "$state/keys" "$state/store" "$state/locked" "$state/run" "$config/agentd" "$runtime" \
        "$units/agentd.service.d" "$units/agentd.socket.d" "$units/agentd-verify.socket.d"
    rmdir "$state" 2>/dev/null || true
else
    for path in "$state" "$config/agentd" "$units/agentd.service.d" "$units/agentd.socket.d" \
        "$units/agentd-verify.socket.d"; do
        [ ! -e "$path" ] || say kept "$path"
    done
    say note '`make uninstall PURGE=1` removes keys, store and settings too'
fi
