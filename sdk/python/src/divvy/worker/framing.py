"""Messages from a slot's process: one read brings as many as there are, so that a busy worker needs fewer of them."""

from __future__ import annotations

import os
import struct

#: The head of each message: its length in bytes.
HEADER = struct.Struct("!Q")

#: The most bytes of one read.
READ_BYTES = 256 * 1024


def write_message(file: int, message: bytes) -> None:
    """Writes a message to a pipe that blocks."""
    left = memoryview(HEADER.pack(len(message)) + message)
    while left:
        left = left[os.write(file, left) :]


class Inbox:
    """The bytes that were read and not taken yet."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def read(self, file: int) -> bool:
        """Reads up to ``READ_BYTES``. False at the pipe's end."""
        read = os.read(file, READ_BYTES)
        self._bytes += read
        return bool(read)

    def has_message(self) -> bool:
        """Whether a whole message is there."""
        return len(self._bytes) >= HEADER.size and len(self._bytes) >= self._end()

    def _end(self) -> int:
        return HEADER.size + int(HEADER.unpack_from(self._bytes)[0])

    def take(self) -> bytes | None:
        """The next message, if the whole of it is there."""
        if not self.has_message():
            return None
        end = self._end()
        message = bytes(memoryview(self._bytes)[HEADER.size : end])
        del self._bytes[:end]
        return message
