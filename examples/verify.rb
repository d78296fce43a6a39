#!/usr/bin/env ruby
# Asks agentd whether the session token at hand is valid.
#
#     ruby verify.rb [AUDIENCE [SCOPE...]]
#
# Prints `valid` (exit 0) or `invalid CODE` (exit 1). Exit 69: there is no answer. That is neither yes nor no.
require "msgpack"
require "socket"
require "timeout"

DEADLINE_SECONDS = 5
MAX_MESSAGE_BYTES = 65_536

def variable(name)
  value = ENV[name].to_s.strip
  value unless value.empty?
end

def runtime_folder
  runtime = ENV["XDG_RUNTIME_DIR"].to_s
  return "#{runtime}/agentd" if runtime.start_with?("/")
  of_user = "/run/user/#{Process.euid}"
  return "#{of_user}/agentd" if File.directory?(of_user) && File.owned?(of_user)
  state = ENV["XDG_STATE_HOME"].to_s
  state = "#{Dir.home}/.local/state" unless state.start_with?("/")
  "#{state}/agentd/run"
end

def token_at_hand
  return variable("AGENTD_TOKEN") if variable("AGENTD_TOKEN")
  return File.read("/dev/fd/#{variable("AGENTD_TOKEN_FD")}").strip if variable("AGENTD_TOKEN_FD")
  File.read(variable("AGENTD_SESSION_TOKEN_PATH") || "#{runtime_folder}/session-token").strip
rescue Errno::ENOENT
  raise if variable("AGENTD_TOKEN_FD")
  ""
end

def call(method, params)
  UNIXSocket.open(variable("AGENTD_SOCKET") || "#{runtime_folder}/agent.sock") do |agent|
    listener, = agent.getpeereid
    raise "uid #{listener} is listening, and not you" unless listener == Process.euid
    agent.write(MessagePack.pack([0, 1, method, [params]]))
    agent.close_write # that was all: the agent answers, and closes
    type, msgid, error, result = MessagePack.unpack(agent.read(MAX_MESSAGE_BYTES).to_s)
    raise error.to_s if error
    raise "not an answer" unless [type, msgid] == [1, 1] && result.is_a?(Hash)
    result
  end
end

def verify(audience = "", *scopes)
  token = token_at_hand
  return ["invalid NOT_LOGGED_IN", 1] if token.empty?
  params = { "token" => token, "audience" => audience.empty? ? nil : audience, "scopes" => scopes }
  result = call("verifyToken", params)
  case result["valid"]
  when true then ["valid", 0]
  when false then ["invalid #{result["reason"]}", 1]
  else raise "not an answer"
  end
end

begin
  line, code = Timeout.timeout(DEADLINE_SECONDS) { verify(*ARGV) }
rescue StandardError => error
  warn "no answer: #{error.message}"
  exit 69
end
puts line
exit code
