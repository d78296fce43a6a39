// Asks agentd about the session token at hand, from Go.
//
//	agentd verify [AUDIENCE [SCOPE...]]    prints `valid` (exit 0), or `invalid CODE` (exit 1)
//	agentd create SECONDS [LABEL]          opens a session and prints its token
//	agentd revoke                          ends the session of the token at hand
//
// Exit 69: there is no answer. That is neither yes nor no.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	deadline        = 5 * time.Second
	maxMessageBytes = 65536
)

type request struct {
	_msgpack struct{} `msgpack:",as_array"`
	Type     int
	ID       int
	Method   string
	Params   []any
}

type response struct {
	_msgpack struct{} `msgpack:",as_array"`
	Type     int
	ID       int
	Error    []any
	Result   map[string]any
}

func runtimeFolder() (string, error) {
	if runtime := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(runtime) {
		return filepath.Join(runtime, "agentd"), nil
	}
	ofUser := fmt.Sprintf("/run/user/%d", os.Geteuid())
	var found syscall.Stat_t
	if syscall.Lstat(ofUser, &found) == nil && found.Mode&syscall.S_IFMT == syscall.S_IFDIR &&
		int(found.Uid) == os.Geteuid() {
		return filepath.Join(ofUser, "agentd"), nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "agentd", "run"), nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state", "agentd", "run"), err
}

// inRuntimeFolder returns the path that a variable holds, or the default in the runtime folder.
func inRuntimeFolder(variable, name string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	folder, err := runtimeFolder()
	return filepath.Join(folder, name), err
}

// tokenAtHand returns the token in the environment, else that in the token file, else "".
func tokenAtHand() (string, error) {
	if token := strings.TrimSpace(os.Getenv("AGENTD_TOKEN")); token != "" {
		return token, nil
	}
	if descriptor := strings.TrimSpace(os.Getenv("AGENTD_TOKEN_FD")); descriptor != "" {
		text, err := os.ReadFile("/dev/fd/" + descriptor)
		return strings.TrimSpace(string(text)), err
	}
	path, err := inRuntimeFolder("AGENTD_SESSION_TOKEN_PATH", "session-token")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// checkListener asks the kernel who is listening, before anything is sent.
func checkListener(connection *net.UnixConn) error {
	raw, err := connection.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		peer, failure = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("uid %d is listening, and not you", peer.Uid)
	}
	return nil
}

func call(method string, params map[string]any) (map[string]any, error) {
	path, err := inRuntimeFolder("AGENTD_SOCKET", "agent.sock")
	if err != nil {
		return nil, err
	}
	dialed, err := net.DialTimeout("unix", path, deadline)
	if err != nil {
		return nil, err
	}
	connection := dialed.(*net.UnixConn)
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, err
	}
	if err := checkListener(connection); err != nil {
		return nil, err
	}
	asked, err := msgpack.Marshal(&request{ID: 1, Method: method, Params: []any{params}})
	if err != nil {
		return nil, err
	}
	if _, err := connection.Write(asked); err != nil {
		return nil, err
	}
	var answer response
	decoder := msgpack.NewDecoder(io.LimitReader(connection, maxMessageBytes))
	if err := decoder.Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, fmt.Errorf("%v", answer.Error)
	}
	if answer.Type != 1 || answer.ID != 1 || answer.Result == nil {
		return nil, errors.New("not an answer")
	}
	return answer.Result, nil
}

func verify(audience string, scopes []string) (string, int, error) {
	token, err := tokenAtHand()
	if err != nil {
		return "", 0, err
	}
	if token == "" {
		return "invalid NOT_LOGGED_IN", 1, nil
	}
	params := map[string]any{"token": token, "scopes": scopes}
	if audience != "" {
		params["audience"] = audience
	}
	result, err := call("verifyToken", params)
	if err != nil {
		return "", 0, err
	}
	valid, isBool := result["valid"].(bool)
	switch {
	case !isBool:
		return "", 0, errors.New("not an answer")
	case valid:
		return "valid", 0, nil
	default:
		return fmt.Sprintf("invalid %v", result["reason"]), 1, nil
	}
}

func create(seconds, label string) (string, int, error) {
	expiry, err := strconv.Atoi(seconds)
	if err != nil {
		return "", 0, err
	}
	result, err := call("createToken", map[string]any{"expiry": expiry, "label": label})
	if err != nil {
		return "", 0, err
	}
	return fmt.Sprint(result["token"]), 0, nil
}

func revoke() (string, int, error) {
	token, err := tokenAtHand()
	if err != nil {
		return "", 0, err
	}
	result, err := call("revokeToken", map[string]any{"token": token})
	if err != nil {
		return "", 0, err
	}
	if result["revoked"] != true {
		return "there was no session to end", 1, nil
	}
	return "revoked", 0, nil
}

func run(arguments []string) (string, int, error) {
	given := len(arguments)
	switch {
	case given >= 2 && arguments[0] == "verify":
		return verify(arguments[1], arguments[2:])
	case given == 1 && arguments[0] == "verify":
		return verify("", nil)
	case given == 3 && arguments[0] == "create":
		return create(arguments[1], arguments[2])
	case given == 2 && arguments[0] == "create":
		return create(arguments[1], "go")
	case given == 1 && arguments[0] == "revoke":
		return revoke()
	}
	return "", 0, errors.New("usage: agentd verify|create|revoke")
}

func main() {
	line, code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "no answer:", err)
		code = 69
	} else {
		fmt.Println(line)
	}
	os.Exit(code)
}
