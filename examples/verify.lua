#!/usr/bin/env lua5.3
-- Asks agentd whether the session token at hand is valid.
--
--     lua5.3 verify.lua [AUDIENCE [SCOPE...]]
--
-- Prints `valid` (exit 0) or `invalid CODE` (exit 1). Exit 69: there is no answer. That is neither yes nor no.
local mpack = require("mpack")
local pwd = require("posix.pwd")
local poll = require("posix.poll")
local signal = require("posix.signal")
local socket = require("posix.sys.socket")
local stat = require("posix.sys.stat")
local time = require("posix.time")
local unistd = require("posix.unistd")

local DEADLINE_SECONDS = 5
local MAX_MESSAGE_BYTES = 65536

local function variable(name)
    local value = (os.getenv(name) or ""):match("^%s*(.-)%s*$")
    return value ~= "" and value or nil
end

local function absolute(name)
    local value = os.getenv(name) or ""
    return value:sub(1, 1) == "/" and value or nil
end

local function owned_folder(path)
    local found = stat.lstat(path)
    return found and stat.S_ISDIR(found.st_mode) ~= 0 and found.st_uid == unistd.geteuid() and found or nil
end

local function runtime_folder()
    local runtime = absolute("XDG_RUNTIME_DIR") or "/run/user/" .. unistd.geteuid()
    if absolute("XDG_RUNTIME_DIR") or owned_folder(runtime) then
        return runtime .. "/agentd"
    end
    local home = variable("HOME") or pwd.getpwuid(unistd.geteuid()).pw_dir
    return (absolute("XDG_STATE_HOME") or home .. "/.local/state") .. "/agentd/run"
end

-- Lua cannot ask the kernel who listens, so nobody else may have been able to put a socket there.
local function check_folder(folder)
    local found = owned_folder(folder)
    local others = stat.S_IWGRP | stat.S_IWOTH
    assert(found and found.st_mode & others == 0, folder .. " is not a folder that only you can write to")
end

local function token_at_hand()
    if variable("AGENTD_TOKEN") then
        return variable("AGENTD_TOKEN")
    end
    local descriptor = variable("AGENTD_TOKEN_FD")
    local path = descriptor and "/dev/fd/" .. descriptor
        or variable("AGENTD_SESSION_TOKEN_PATH")
        or runtime_folder() .. "/session-token"
    if not descriptor and not stat.lstat(path) then
        return ""
    end
    local file = assert(io.open(path))
    local text = file:read("a")
    file:close()
    return text:match("^%s*(.-)%s*$")
end

local function now()
    local clock = time.clock_gettime(time.CLOCK_MONOTONIC)
    return clock.tv_sec + clock.tv_nsec / 1e9
end

-- Send one request, and say that it was the only one: the agent answers, and closes.
local function exchange(path, request)
    local deadline = now() + DEADLINE_SECONDS
    local agent = assert(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0))
    -- Limits connect as well as send.
    assert(socket.setsockopt(agent, socket.SOL_SOCKET, socket.SO_SNDTIMEO, DEADLINE_SECONDS, 0))
    assert(socket.connect(agent, { family = socket.AF_UNIX, path = path }))
    assert(assert(socket.send(agent, request)) == #request, "the agent does not read")
    assert(socket.shutdown(agent, socket.SHUT_WR))
    local answer = ""
    repeat
        local left = math.max(0, math.ceil((deadline - now()) * 1000))
        assert(poll.rpoll(agent, left) == 1, "the agent does not answer")
        local read = assert(socket.recv(agent, 8192))
        answer = answer .. read
        assert(#answer <= MAX_MESSAGE_BYTES, "the answer is too long")
    until read == ""
    unistd.close(agent)
    return answer
end

local function call(method, params)
    local path = variable("AGENTD_SOCKET") or runtime_folder() .. "/agent.sock"
    check_folder(path:match("^(.+)/[^/]*$") or (path:sub(1, 1) == "/" and "/" or "."))
    local message = mpack.unpack(exchange(path, mpack.pack({ 0, 1, method, { params } })))
    assert(type(message) == "table" and message[1] == 1 and message[2] == 1, "not an answer")
    if message[3] ~= mpack.NIL then
        error(message[3][2], 0)
    end
    return message[4]
end

local function verify(audience, ...)
    local token = token_at_hand()
    if token == "" then
        return "invalid NOT_LOGGED_IN", 1
    end
    if audience == "" then
        audience = nil
    end
    local result = call("verifyToken", { token = token, audience = audience, scopes = { ... } })
    if result.valid == true then
        return "valid", 0
    end
    assert(result.valid == false, "not an answer")
    return "invalid " .. result.reason, 1
end

signal.signal(signal.SIGPIPE, signal.SIG_IGN)
local answered, line, code = pcall(verify, ...)
if not answered then
    io.stderr:write("no answer: ", tostring(line), "\n")
    os.exit(69)
end
print(line)
os.exit(code)
