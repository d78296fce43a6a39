#!/bin/sh
# Install agentd for the current user, or upgrade it in place: sessions, keys and settings stay.
# PYTHON names the interpreter to use. Nothing outside the user's own folders is changed.
set -eu

[ -n "${HOME:-}" ] && [ -O "$HOME" ] || {
    printf 'agentd: HOME is %s, which is not a folder of your own; set it (sudo -H, su -)\n' "${HOME:-not set}" >&2
    exit 1
}
source=$(cd "$(dirname "$0")/.." && pwd)
data=${XDG_DATA_HOME:-$HOME/.local/share}
config=${XDG_CONFIG_HOME:-$HOME/.config}
state_home=${XDG_STATE_HOME:-$HOME/.local/state}
environment=$data/agentd/venv
python=$environment/bin/python
commands=$HOME/.local/bin
units=$config/systemd/user

say() { printf '%-11s %s\n' "$1" "$2"; }
fail() {
    printf 'agentd: %s\n' "$*" >&2
    exit 1
}

"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail 'agentd needs Python 3.11 or newer; set PYTHON=/path/to/python3.11'
# Also re-created if its Python was removed, by a system upgrade for instance.
if ! "$python" -I -c 'import pip' 2>/dev/null; then
    "${PYTHON:-python3}" -m venv --clear "$environment" ||
        fail 'the venv module is missing; on Debian: apt-get install python3-venv'
fi
"$python" -I -m pip install --quiet --upgrade "$source/client[async,cli]" "$source[logind]"
# The commands run with -I, so that neither PYTHON* variables nor the current folder add modules. If a path is too long
# for `#!` or contains a space, pip writes a shell script that calls Python in its second line.
for command in agentd agentctl; do
    sed -i -e '1s|^#!\(/.*/python[0-9.]*\)$|#!\1 -I|' -e "2s|^\('''exec' .*\) \"\$0\" |\1 -I \"\$0\" |" \
        "$environment/bin/$command"
done
say installed "$("$environment/bin/agentd" --version) in $environment"

mkdir -p "$commands"
for command in agentd agentctl; do
    ln -sfn "$environment/bin/$command" "$commands/$command"
    say linked "$commands/$command"
done
case ":$PATH:" in
    *":$commands:"*) ;;
    *) say note "$commands is not in your PATH" ;;
esac

complete() { # shell file
    mkdir -p "$(dirname "$2")"
    "$environment/bin/agentctl" completion "$1" >"$2"
    say completion "$2"
}
complete bash "$data/bash-completion/completions/agentctl"
complete zsh "$data/zsh/site-functions/_agentctl"
complete fish "$config/fish/completions/agentctl.fish"

# Beside the commands, not in XDG_DATA_HOME: man looks for pages relative to the folders in PATH.
for page in agentctl.1 agentd.1 agentd.toml.5 agentd-protocol.7; do
    folder=$HOME/.local/share/man/man${page##*.}
    mkdir -p "$folder"
    cp "$environment/share/man/man${page##*.}/$page" "$folder/$page"
    say manual "$folder/$page"
done

# The unit may write only to this folder and the socket's, so it must exist before the start. The settings say where it
# is; wrong settings end the installation here, with the reason.
state=$("$python" -I -c 'if True:
    import sys
    from agentd.config import load
    from agentd_client import AgentdError
    from agentd_client.private import make_folders
    try:
        state = load().state_path
        # Checked here, because inside the sandbox the owners of the folders above are not visible.
        fault = make_folders(state)
        sys.exit(f"agentd: {fault}") if fault else print(state)
    except AgentdError as error:
        sys.exit("agentd: " + error.sentence)')
chmod 700 "$state"
mkdir -p "$units"
socket_changed=false
cmp -s "$source/systemd/agentd.socket" "$units/agentd.socket" || socket_changed=true
cp "$source/systemd/agentd.socket" "$units/agentd.socket"
# Installed but not enabled; if the user has enabled it, it stays so.
cp "$source/systemd/agentd-verify.socket" "$units/agentd-verify.socket"
# systemd.unit(5) interprets specifiers and escapes inside double quotes too, so paths are escaped.
"$python" -I -c 'if True:
    import sys
    text = open(sys.argv[1]).read()
    for given in sys.argv[2:]:
        name, _, value = given.partition("=")
        escaped = value.replace("%", "%%").replace("\\", "\\\\").replace("\"", "\\\"")
        text = text.replace("@" + name + "@", escaped)
    sys.stdout.write(text)' "$source/systemd/agentd.service" "PYTHON=$python" "STATE=$state" \
    "STATE_HOME=$state_home" "CONFIG_HOME=$config" >"$units/agentd.service"
say units "$units/agentd.socket, agentd.service; agentd-verify.socket, not enabled"

lock=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/agentd/agent.sock.lock
if ! systemctl --user show-environment >/dev/null 2>&1; then
    say note 'no systemd user manager answers; once there is one: systemctl --user enable --now agentd.socket'
else
    systemctl --user daemon-reload
    systemctl --user reset-failed agentd.socket agentd.service 2>/dev/null || true
    if [ "$socket_changed" = true ]; then
        systemctl --user stop agentd.socket agentd.service 2>/dev/null || true
    fi
    if ! systemctl --user --quiet is-active agentd.socket && [ -e "$lock" ] && ! flock -n "$lock" true; then
        systemctl --user --quiet enable agentd.socket
        say enabled 'agentd.socket, from your next login on'
        say note 'an agent that was started by hand serves now; to switch to systemd at once,'
        say '' 'stop it and run: systemctl --user start agentd.socket'
    else
        systemctl --user --quiet enable --now agentd.socket
        systemctl --user try-restart agentd.service ||
            fail 'the agent no longer starts; see: journalctl --user -u agentd -n 20'
        say enabled 'agentd.socket: the first connection starts the agent'
    fi
    # PrivateUsers= and the rest of the sandbox need user namespaces, which some systems deny to users.
    systemd-run --user --quiet --wait --collect -p PrivateUsers=yes -p ProtectSystem=strict true 2>/dev/null ||
        say note 'user services have no namespaces here: see docs/operations.md, "Without user namespaces"'
fi
say note 'the agent ends with your last login session and starts with the next; to keep it'
say '' 'running (cron, servers): loginctl enable-linger'
say next 'agentctl login'
