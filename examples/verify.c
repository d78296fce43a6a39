/* Asks agentd whether the session token at hand is valid.
 *
 *     cc -o verify verify.c -lmsgpackc
 *     verify [AUDIENCE [SCOPE...]]
 *
 * Prints `valid` (exit 0) or `invalid CODE` (exit 1). Exit 69: there is no answer. That is neither yes nor no. */
#define _GNU_SOURCE /* struct ucred */
#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { DEADLINE_SECONDS = 5, MAX_MESSAGE_BYTES = 65536, MAX_TOKEN_BYTES = 8192, MAX_PATH_BYTES = 4096 };

static _Noreturn void no_answer(const char *reason)
{
    fprintf(stderr, "no answer: %s\n", reason);
    exit(EX_UNAVAILABLE);
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static const char *absolute(const char *name)
{
    const char *value = getenv(name);
    return value && *value == '/' ? value : NULL;
}

/* The path that a variable holds, or the default in the runtime folder. */
static const char *in_runtime_folder(const char *name, const char *file, char path[MAX_PATH_BYTES])
{
    if (variable(name))
        return variable(name);
    char of_user[64];
    struct stat found;
    snprintf(of_user, sizeof of_user, "/run/user/%u", geteuid());
    int length;
    if (absolute("XDG_RUNTIME_DIR")) {
        length = snprintf(path, MAX_PATH_BYTES, "%s/agentd/%s", absolute("XDG_RUNTIME_DIR"), file);
    } else if (lstat(of_user, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid()) {
        length = snprintf(path, MAX_PATH_BYTES, "%s/agentd/%s", of_user, file);
    } else if (absolute("XDG_STATE_HOME")) {
        length = snprintf(path, MAX_PATH_BYTES, "%s/agentd/run/%s", absolute("XDG_STATE_HOME"), file);
    } else {
        const struct passwd *user = getpwuid(geteuid());
        const char *home = variable("HOME") ? variable("HOME") : user ? user->pw_dir : "";
        length = snprintf(path, MAX_PATH_BYTES, "%s/.local/state/agentd/run/%s", home, file);
    }
    if (length >= MAX_PATH_BYTES)
        no_answer("a path is too long");
    return path;
}

/* The token in the environment, else that in the token file, else "". */
static const char *token_at_hand(char token[MAX_TOKEN_BYTES + 2])
{
    static const char space[] = " \t\r\n";
    char buffer[MAX_PATH_BYTES];
    const char *path = buffer, *descriptor = variable("AGENTD_TOKEN_FD");
    if (variable("AGENTD_TOKEN")) {
        snprintf(token, MAX_TOKEN_BYTES + 2, "%s", variable("AGENTD_TOKEN"));
    } else {
        if (descriptor)
            snprintf(buffer, sizeof buffer, "/dev/fd/%s", descriptor);
        else
            path = in_runtime_folder("AGENTD_SESSION_TOKEN_PATH", "session-token", buffer);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 && errno == ENOENT && !descriptor)
            return "";
        ssize_t size = file < 0 ? -1 : read(file, token, MAX_TOKEN_BYTES + 1);
        if (size < 0)
            no_answer("the token cannot be read");
        close(file);
        token[size] = '\0';
    }
    char *start = token + strspn(token, space), *end = start + strlen(start);
    while (end > start && strchr(space, end[-1]))
        end--;
    *end = '\0';
    return start;
}

/* Connect, and ask the kernel who is listening before anything is sent. */
static int connected(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        no_answer("the socket's path is too long");
    strcpy(address.sun_path, path);
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = DEADLINE_SECONDS}; /* of connect as well as send */
    if (agent < 0 || setsockopt(agent, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
        connect(agent, (struct sockaddr *)&address, sizeof address) < 0)
        no_answer("there is no agent");
    struct ucred listener;
    socklen_t size = sizeof listener;
    if (getsockopt(agent, SOL_SOCKET, SO_PEERCRED, &listener, &size) < 0 || listener.uid != geteuid())
        no_answer("another user is listening");
    return agent;
}

/* Send one request, and say that it was the only one: the agent answers, and closes. */
static size_t exchange(int agent, const char *request, size_t request_size, char answer[MAX_MESSAGE_BYTES])
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t deadline = now.tv_sec + DEADLINE_SECONDS;
    if (send(agent, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size || shutdown(agent, SHUT_WR) < 0)
        no_answer("the agent does not read");
    for (size_t size = 0; size < MAX_MESSAGE_BYTES;) {
        struct pollfd readable = {.fd = agent, .events = POLLIN};
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= deadline || poll(&readable, 1, (int)(deadline - now.tv_sec) * 1000) != 1)
            no_answer("the agent does not answer");
        ssize_t got = recv(agent, answer + size, MAX_MESSAGE_BYTES - size, 0);
        if (got < 0)
            no_answer("the connection broke");
        if (got == 0)
            return size;
        size += (size_t)got;
    }
    no_answer("the answer is too long");
}

static void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

/* [0, 1, "verifyToken", [{"token": ..., "scopes": [...], "audience": ...}]] */
static void pack_request(msgpack_packer *packer, const char *token, const char *audience, int scopes, char **scope)
{
    msgpack_pack_array(packer, 4);
    msgpack_pack_int(packer, 0);
    msgpack_pack_int(packer, 1);
    pack_text(packer, "verifyToken");
    msgpack_pack_array(packer, 1);
    msgpack_pack_map(packer, *audience ? 3 : 2);
    pack_text(packer, "token");
    pack_text(packer, token);
    pack_text(packer, "scopes");
    msgpack_pack_array(packer, (size_t)scopes);
    for (int i = 0; i < scopes; i++)
        pack_text(packer, scope[i]);
    if (*audience) {
        pack_text(packer, "audience");
        pack_text(packer, audience);
    }
}

static const msgpack_object *field(const msgpack_object *map, const char *name)
{
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *entry = &map->via.map.ptr[i];
        if (entry->key.type == MSGPACK_OBJECT_STR && entry->key.via.str.size == strlen(name) &&
            memcmp(entry->key.via.str.ptr, name, strlen(name)) == 0)
            return &entry->val;
    }
    no_answer("a field is missing");
}

/* The result of the response [1, 1, nil, {...}]. */
static const msgpack_object *result_of(const msgpack_object *message)
{
    const msgpack_object *item = message->via.array.ptr;
    if (message->type != MSGPACK_OBJECT_ARRAY || message->via.array.size != 4 ||
        item[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER || item[0].via.u64 != 1 ||
        item[1].type != MSGPACK_OBJECT_POSITIVE_INTEGER || item[1].via.u64 != 1)
        no_answer("it is no response");
    if (item[2].type != MSGPACK_OBJECT_NIL) {
        msgpack_object_print(stderr, item[2]);
        no_answer("the agent refused");
    }
    if (item[3].type != MSGPACK_OBJECT_MAP)
        no_answer("it is no result");
    return &item[3];
}

int main(int count, char **arguments)
{
    char room[MAX_TOKEN_BYTES + 2], path[MAX_PATH_BYTES];
    static char answer[MAX_MESSAGE_BYTES];
    const char *token = token_at_hand(room);
    if (!*token) {
        puts("invalid NOT_LOGGED_IN");
        return 1;
    }
    msgpack_sbuffer request;
    msgpack_packer packer;
    msgpack_sbuffer_init(&request);
    msgpack_packer_init(&packer, &request, msgpack_sbuffer_write);
    pack_request(&packer, token, count > 1 ? arguments[1] : "", count > 2 ? count - 2 : 0, arguments + 2);

    int agent = connected(in_runtime_folder("AGENTD_SOCKET", "agent.sock", path));
    size_t size = exchange(agent, request.data, request.size, answer);
    close(agent);
    msgpack_sbuffer_destroy(&request);

    msgpack_unpacked message;
    msgpack_unpacked_init(&message);
    if (msgpack_unpack_next(&message, answer, size, NULL) != MSGPACK_UNPACK_SUCCESS)
        no_answer("it is not MessagePack");
    const msgpack_object *result = result_of(&message.data);
    const msgpack_object *valid = field(result, "valid"), *reason = field(result, "reason");
    if (valid->type != MSGPACK_OBJECT_BOOLEAN || (!valid->via.boolean && reason->type != MSGPACK_OBJECT_STR))
        no_answer("it is no verification");
    bool is_valid = valid->via.boolean;
    if (is_valid)
        puts("valid");
    else
        printf("invalid %.*s\n", (int)reason->via.str.size, reason->via.str.ptr);
    msgpack_unpacked_destroy(&message);
    return is_valid ? 0 : 1;
}
