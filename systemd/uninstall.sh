#!/bin/sh
# Undo install.sh. Keys, store and settings stay, unless PURGE=1: then every session is gone for good.
set -eu

data=${XDG_DATA_HOME:-$HOME/.local/share}
config=${XDG_CONFIG_HOME:-$HOME/.config}
state=${XDG_STATE_HOME:-$HOME/.local/state}/agentd

say() { printf '%s\n' "$*"; }
remove() {
    for path in "$@"; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            rm -rf "$path"
            say "removed     $path"
        fi
    done
}

if systemctl --user list-units >/dev/null 2>&1; then
    systemctl --user disable --quiet --now agentd.socket agentd.service 2>/dev/null || true
    say "stopped     agentd.socket, agentd.service"
fi
remove "$config/systemd/user/agentd.socket" "$config/systemd/user/agentd.service"
systemctl --user daemon-reload 2>/dev/null || true
for command in agentd agentctl; do
    # Only the links that install.sh made; a command from elsewhere is not ours to remove.
    case "$(readlink "$HOME/.local/bin/$command" || true)" in
        "$data/agentd/venv/"*) remove "$HOME/.local/bin/$command" ;;
    esac
done
remove "$data/bash-completion/completions/agentctl" "$data/zsh/site-functions/_agentctl" \
    "$config/fish/completions/agentctl.fish" "$data/agentd/venv"
rmdir "$data/agentd" 2>/dev/null || true

if [ "${PURGE:-}" = 1 ]; then
    remove "$state" "$config/agentd"
elif [ -e "$state" ]; then
    say "kept        $state (keys and store; \`make uninstall PURGE=1\` removes them)"
fi
