"""The protocol: bytes in, messages out. Nothing below this folder opens a socket, a clock or a file."""
