// Asks agentd about the session token at hand, from Node.
//
//     node agentd.mjs verify [AUDIENCE [SCOPE...]]    prints `valid` (exit 0), or `invalid CODE` (exit 1)
//     node agentd.mjs create SECONDS [LABEL]          opens a session and prints its token
//     node agentd.mjs revoke                          ends the session of the token at hand
//
// Exit 69: there is no answer. That is neither yes nor no.
import { lstatSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { decode, encode } from '@msgpack/msgpack'

const DEADLINE_MS = 5000
const MAX_MESSAGE_BYTES = 65536
const uid = process.geteuid()
const { env } = process

function runtimeFolder() {
  if (isAbsolute(env.XDG_RUNTIME_DIR ?? '')) return join(env.XDG_RUNTIME_DIR, 'agentd')
  const ofUser = lstatSync(`/run/user/${uid}`, { throwIfNoEntry: false })
  if (ofUser?.isDirectory() && ofUser.uid === uid) return `/run/user/${uid}/agentd`
  const state = isAbsolute(env.XDG_STATE_HOME ?? '') ? env.XDG_STATE_HOME : join(homedir(), '.local/state')
  return join(state, 'agentd/run')
}

// Node cannot ask the kernel who listens, so nobody else may have been able to put a socket there.
function checkFolder(folder) {
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== uid || found.mode & 0o022) {
    throw new Error(`${folder} is not a folder that only you can write to`)
  }
}

function tokenAtHand() {
  const given = env.AGENTD_TOKEN?.trim()
  if (given) return given
  const descriptor = env.AGENTD_TOKEN_FD?.trim()
  const path = descriptor
    ? `/dev/fd/${descriptor}`
    : env.AGENTD_SESSION_TOKEN_PATH || join(runtimeFolder(), 'session-token')
  try {
    return readFileSync(path, 'ascii').trim()
  } catch (error) {
    if (error.code === 'ENOENT' && !descriptor) return ''
    throw error
  }
}

// Send one request, and say with end() that it was the only one: the agent answers, and closes.
async function exchange(path, request) {
  const socket = connect(path)
  const deadline = setTimeout(() => socket.destroy(new Error('the agent does not answer')), DEADLINE_MS)
  socket.end(request)
  const chunks = []
  let size = 0
  try {
    for await (const chunk of socket) {
      chunks.push(chunk)
      size += chunk.length
      if (size > MAX_MESSAGE_BYTES) throw new Error('the answer is too long')
    }
  } finally {
    clearTimeout(deadline)
  }
  return Buffer.concat(chunks)
}

async function call(method, params) {
  const path = env.AGENTD_SOCKET || join(runtimeFolder(), 'agent.sock')
  checkFolder(dirname(path))
  const [type, msgid, error, result] = decode(await exchange(path, encode([0, 1, method, [params]])))
  if (error) throw new Error(error[1])
  if (type !== 1 || msgid !== 1 || typeof result !== 'object') throw new Error('not an answer')
  return result
}

async function verify(audience, ...scopes) {
  const token = tokenAtHand()
  if (!token) return ['invalid NOT_LOGGED_IN', 1]
  const { valid, reason } = await call('verifyToken', { token, audience: audience || null, scopes })
  if (valid === true) return ['valid', 0]
  if (valid === false) return [`invalid ${reason}`, 1]
  throw new Error('not an answer')
}

async function create(seconds, label = 'node') {
  const { token } = await call('createToken', { expiry: Number(seconds), label })
  return [token, 0]
}

async function revoke() {
  const { revoked } = await call('revokeToken', { token: tokenAtHand() })
  return revoked ? ['revoked', 0] : ['there was no session to end', 1]
}

const [command, ...parameters] = process.argv.slice(2)
try {
  const [line, code] = await { verify, create, revoke }[command](...parameters)
  console.log(line)
  process.exitCode = code
} catch (error) {
  console.error(`no answer: ${error.message}`)
  process.exitCode = 69
}
