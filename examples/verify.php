<?php
// Asks agentd whether the session token at hand is valid.
//
//     php verify.php [AUDIENCE [SCOPE...]]
//
// Prints `valid` (exit 0) or `invalid CODE` (exit 1). Exit 69: there is no answer. That is neither yes nor no.
declare(strict_types=1);

const DEADLINE_SECONDS = 5;
const MAX_MESSAGE_BYTES = 65536;

function variable(string $name): ?string
{
    $value = trim((string) getenv($name));
    return $value === '' ? null : $value;
}

function home(): string
{
    return getenv('HOME') ?: posix_getpwuid(posix_geteuid())['dir'];
}

function runtimeFolder(): string
{
    $runtime = (string) getenv('XDG_RUNTIME_DIR');
    if (str_starts_with($runtime, '/')) {
        return "$runtime/agentd";
    }
    $ofUser = '/run/user/' . posix_geteuid();
    if (is_dir($ofUser) && !is_link($ofUser) && fileowner($ofUser) === posix_geteuid()) {
        return "$ofUser/agentd";
    }
    $state = (string) getenv('XDG_STATE_HOME');
    return (str_starts_with($state, '/') ? $state : home() . '/.local/state') . '/agentd/run';
}

/** PHP cannot ask the kernel who listens, so nobody else may have been able to put a socket there. */
function checkFolder(string $folder): void
{
    if (!is_dir($folder) || is_link($folder) || fileowner($folder) !== posix_geteuid() || fileperms($folder) & 0o022) {
        throw new RuntimeException("$folder is not a folder that only you can write to");
    }
}

function tokenAtHand(): string
{
    if ($given = variable('AGENTD_TOKEN')) {
        return $given;
    }
    $descriptor = variable('AGENTD_TOKEN_FD');
    $path = $descriptor !== null
        ? "php://fd/$descriptor" // PHP resolves /dev/fd/N itself, to a path that does not exist
        : variable('AGENTD_SESSION_TOKEN_PATH') ?? runtimeFolder() . '/session-token';
    if ($descriptor === null && !file_exists($path)) {
        return '';
    }
    $file = @fopen($path, 'r');
    if ($file === false) {
        throw new RuntimeException("cannot read $path");
    }
    return trim(stream_get_contents($file, null, 0)); // from its start: a descriptor's offset is shared
}

/** Send one request, and say that it was the only one: the agent answers, and closes. */
function exchange(string $path, string $request): string
{
    $until = hrtime(true) + DEADLINE_SECONDS * 1_000_000_000;
    $agent = @stream_socket_client("unix://$path", $errno, $message, DEADLINE_SECONDS);
    if ($agent === false || @fwrite($agent, $request) !== strlen($request)) {
        throw new RuntimeException("no agent at $path");
    }
    stream_socket_shutdown($agent, STREAM_SHUT_WR);
    stream_set_blocking($agent, false);
    $answer = '';
    while (!feof($agent) && strlen($answer) <= MAX_MESSAGE_BYTES) {
        $left = intdiv($until - hrtime(true), 1000);
        [$read, $write, $except] = [[$agent], null, null];
        if ($left <= 0 || !stream_select($read, $write, $except, 0, $left)) {
            throw new RuntimeException('the agent does not answer');
        }
        $answer .= fread($agent, 8192);
    }
    return $answer;
}

function call(string $method, array $params): array
{
    $path = variable('AGENTD_SOCKET') ?? runtimeFolder() . '/agent.sock';
    checkFolder(dirname($path));
    $codec = new MessagePack(false); // plain MessagePack: false switches PHP's own objects off
    $message = @$codec->unpack(exchange($path, $codec->pack([0, 1, $method, [$params]])));
    if (isset($message[2])) {
        throw new RuntimeException($message[2][1]);
    }
    if (!is_array($message) || array_slice($message, 0, 2) !== [1, 1] || !is_array($message[3] ?? null)) {
        throw new RuntimeException('not an answer');
    }
    return $message[3];
}

function verify(string $audience = '', string ...$scopes): array
{
    $token = tokenAtHand();
    if ($token === '') {
        return ['invalid NOT_LOGGED_IN', 1];
    }
    $result = call('verifyToken', ['token' => $token, 'audience' => $audience ?: null, 'scopes' => $scopes]);
    return match ($result['valid'] ?? null) {
        true => ['valid', 0],
        false => ["invalid {$result['reason']}", 1],
    };
}

try {
    [$line, $code] = verify(...array_slice($argv, 1));
} catch (Throwable $error) {
    fwrite(STDERR, "no answer: {$error->getMessage()}\n");
    exit(69);
}
echo "$line\n";
exit($code);
