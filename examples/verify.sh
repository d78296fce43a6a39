#!/bin/sh
# Asks agentd whether the session token at hand is valid. Needs socat, and od, timeout and find as GNU has them.
#
#     sh verify.sh [AUDIENCE [SCOPE...]]
#
# Prints `valid` (exit 0) or `invalid CODE` (exit 1). Exit 69: there is no answer. That is neither yes nor no.
set -u
LC_ALL=C # characters are bytes
export LC_ALL
deadline_seconds=5

no_answer() {
    printf 'no answer: %s\n' "$1" >&2
    exit 69
}

runtime_folder() {
    case ${XDG_RUNTIME_DIR:-} in /*) printf %s "$XDG_RUNTIME_DIR/agentd"; return ;; esac
    user=/run/user/$(id -u)
    if [ -d "$user" ] && [ ! -L "$user" ] && [ -O "$user" ]; then
        printf %s "$user/agentd"
        return
    fi
    case ${XDG_STATE_HOME:-} in
        /*) printf %s "$XDG_STATE_HOME/agentd/run" ;;
        *) printf %s "${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.local/state/agentd/run" ;;
    esac
}

# A shell cannot ask the kernel who listens, so nobody else may have been able to put a socket there.
check_folder() {
    [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -z "$(find "$1" -prune -perm /022)" ] ||
        no_answer "$1 is not a folder that only you can write to"
}

token_at_hand() {
    if [ -n "${AGENTD_TOKEN:-}" ]; then
        printf %s "$AGENTD_TOKEN"
    elif [ -n "${AGENTD_TOKEN_FD:-}" ]; then
        cat "/dev/fd/$AGENTD_TOKEN_FD"
    else
        file=${AGENTD_SESSION_TOKEN_PATH:-$(runtime_folder)/session-token}
        [ ! -e "$file" ] || cat "$file"
    fi | sed 's/^[[:space:]]*//; s/[[:space:]]*$//'
}

byte() { printf "\\$(printf %03o "$1")"; }

text() { # as MessagePack has it
    if [ ${#1} -lt 32 ]; then
        byte $((0xa0 + ${#1}))
    elif [ ${#1} -lt 256 ]; then
        byte 0xd9 && byte ${#1}
    else
        byte 0xda && byte $((${#1} / 256)) && byte $((${#1} % 256))
    fi
    printf %s "$1" # the shell's own printf: a token is in no argument list
}

request() { # TOKEN [AUDIENCE [SCOPE...]]: [0, 1, "verifyToken", [{"token": TOKEN, ...}]]
    byte 0x94 && byte 0 && byte 1 && text verifyToken && byte 0x91
    if [ -n "${2:-}" ]; then byte 0x83; else byte 0x82; fi
    text token && text "$1"
    [ -z "${2:-}" ] || { text audience && text "$2"; }
    if [ $# -gt 1 ]; then shift 2; else shift; fi
    text scopes && byte $((0x90 + $#))
    for scope; do text "$scope"; done
}

[ $# -le 16 ] || no_answer "too many scopes"
socket=${AGENTD_SOCKET:-$(runtime_folder)/agent.sock}
case $socket in /*) ;; *) socket=./$socket ;; esac
folder=${socket%/*}
check_folder "${folder:-/}"
token=$(token_at_hand) || no_answer "the token cannot be read"
[ -n "$token" ] || { echo "invalid NOT_LOGGED_IN"; exit 1; }
[ ${#token} -le 8192 ] || { echo "invalid MALFORMED"; exit 1; }
address=UNIX-CONNECT:$(printf %s "$socket" | sed 's/[^A-Za-z0-9/._-]/\\&/g')
answer=$(request "$token" "$@" |
    timeout "$deadline_seconds" socat -t "$deadline_seconds" STDIO "$address" |
    head -c 65536 | od -A n -v -t x1 | tr -d ' \n')

# [1, 1, nil, {"valid": ...: compared from the first byte on, because a session's label may hold any bytes.
case $answer in
    940101c08?a576616c6964c3*) echo valid; exit 0 ;;
    940101c08?a576616c6964c2a6726561736f6e[ab]?*) ;;
    *) no_answer "$(printf %.80s "${answer:-the agent is away}")" ;;
esac
rest=${answer#940101c08?a576616c6964c2a6726561736f6e}
length=$((0x${rest%"${rest#??}"} & 0x1f))
printf 'invalid '
while [ "$length" -gt 0 ]; do
    rest=${rest#??}
    byte 0x"${rest%"${rest#??}"}"
    length=$((length - 1))
done
echo
exit 1
