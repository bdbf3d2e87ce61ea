"""What a stranger may make these servers (and a sloppy server may make our client) hold, wait for or write."""

from __future__ import annotations

from towline.base.limits import GIB, KIB, MIB, Limit

READ = Limit("classic_read", 64 * KIB, "bytes", "what one read is: one recv() with this buffer")
CLIENTS = Limit("classic_clients", 1000, "clients", "connections of one server; each may hold one message")
DATAGRAM_PEERS = Limit("classic_datagram_peers", 1024, "peers", "UDP addresses remembered; the oldest is forgotten")
MESSAGE = Limit("classic_message", 16 * MIB, "bytes", "a message behind a length is held whole before its answer")
MEMORY = Limit("classic_memory", 256 * MIB, "bytes", "unfinished messages of all clients of one server together")
LENGTH_DIGITS = Limit("classic_length_digits", 20, "digits", "no length written as text needs more")
HEADER = Limit("classic_header", 16 * KIB, "bytes", "JSON headers name a file; below 64 KiB they start with a NUL")
NAME = Limit("classic_name", 4 * KIB, "bytes", "PATH_MAX of Linux")
FILE = Limit("classic_file", 1024 * GIB, "bytes", "larger ones are announced by mistake or malice")
OUTPUT = Limit("classic_output", 16 * MIB, "bytes", "a command's output is held whole, its length goes first")
COMMANDS = Limit("classic_commands", 32, "commands", "commands that run at once for all clients; the others wait")
ANSWER = Limit("classic_answer", 64 * MIB, "bytes", "an answer is held whole by our client before it is shown")
ANSWER_SECONDS = Limit("classic_answer_seconds", 60, "seconds", "an output is held for a client that does not read")
CHAT_QUEUE = Limit("classic_chat_queue", 512 * KIB, "bytes", "what may wait for a chat client that does not read")
CHAT_MESSAGES = Limit("classic_chat_messages", 256, "messages", "each costs more than its bytes")
GATE_SECONDS = Limit("classic_gate", 5, "seconds", "a program answers the check at once; absolute")

CHUNK = 256 * KIB  # one disk read or write, one hop to a thread
