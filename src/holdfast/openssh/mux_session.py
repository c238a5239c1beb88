"""Sessions on a control master, over its socket."""

from __future__ import annotations

import array
import socket
import time
from collections.abc import Sequence
from typing import Optional

from . import mux_protocol
from .mux_client import PROBE_TIMEOUT, REQUEST_ID, MuxError, connect, reply
from .mux_protocol import Alive, Decoder, Exited, ProtocolError, Refused, SessionOpened


class SessionNotOpened(MuxError):
    """There is no session.

    :ivar refused: the server (or a human asked by the master) said no.
    :ivar foreign: the master speaks another protocol, or another version of it.
    :ivar started: False if the command certainly has not started, None if nobody can know.
    """

    def __init__(
        self,
        message: str,
        *,
        refused: bool = False,
        started: Optional[bool] = False,
        foreign: bool = False,
    ):
        super().__init__(message)
        self.refused = refused
        self.foreign = foreign
        self.started = started


class Session:
    """One multiplexed session: a command on the far side, tied to a control connection.

    The order of events is SESSION_OPENED, then EXIT_MESSAGE and the ends of the streams in any
    order, then the end of the control connection; only then is everything written that will be.
    """

    def __init__(self, sock: socket.socket, decoder: Decoder, master_pid: int) -> None:
        self._sock = sock
        self._decoder = decoder
        self.master_pid = master_pid
        self.status: Optional[int] = None
        self.opened = False
        self.ended = False

    @classmethod
    def open(
        cls,
        path: str,
        command: bytes,
        descriptors: Sequence[int],
        deadline: float,
        *,
        environment: Sequence[bytes] = (),
        agent: bool = False,
    ) -> Session:
        """:meth:`request` and :meth:`await_opened`: one round trip to the server."""
        session = cls.request(
            path, command, descriptors, deadline, environment=environment, agent=agent
        )
        session.await_opened(deadline)
        return session

    @classmethod
    def request(
        cls,
        path: str,
        command: bytes,
        descriptors: Sequence[int],
        deadline: float,
        *,
        environment: Sequence[bytes] = (),
        agent: bool = False,
    ) -> Session:
        """Ask for a session that runs a command; does not wait for the server.

        An alive check goes first, as in ssh's own client: a master that does not answer gets no
        command, which it would run whenever it wakes up.

        :param descriptors: stdin, stdout and stderr for the master, which makes them non-blocking:
            never somebody else's. The caller closes its copies.
        :param deadline: of time.monotonic(), for the master to read the request.
        :raises SessionNotOpened: nothing has started.
        """
        packet = mux_protocol.new_session(REQUEST_ID, command, environment=environment, agent=agent)
        deadline = min(deadline, time.monotonic() + PROBE_TIMEOUT)
        try:
            sock = connect(path, deadline)
        except OSError as error:
            raise SessionNotOpened(f"control socket {path}: {error}") from None
        decoder = Decoder()
        try:
            sock.sendall(mux_protocol.hello() + mux_protocol.alive_check(REQUEST_ID))
            alive = reply(sock, decoder, deadline)
            if not isinstance(alive, Alive):
                raise ProtocolError(f"unexpected answer {alive}")
            # All of it back to back: a master waits for the descriptors and serves nobody else
            # meanwhile. It wants one message for each, with one byte of data.
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.sendall(packet)
            for descriptor in descriptors:
                rights = array.array("i", [descriptor])
                sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (TimeoutError, socket.timeout):
            sock.close()
            raise SessionNotOpened(f"control socket {path}: the master does not answer") from None
        except (OSError, EOFError, ProtocolError) as error:
            sock.close()
            raise SessionNotOpened(
                f"control socket {path}: {error}", foreign=isinstance(error, ProtocolError)
            ) from None
        except BaseException:
            sock.close()
            raise
        return cls(sock, decoder, alive.pid)

    def await_opened(self, deadline: float) -> None:
        """Wait until the server has given the session.

        :raises SessionNotOpened: with what is known. :raises TimeoutError: at the deadline; the
            command may have started. In both cases the session is closed.
        """
        if self.opened:
            return
        try:
            answer = reply(self._sock, self._decoder, deadline, greeted=True)
        except (TimeoutError, socket.timeout):
            self.close()
            raise TimeoutError("no session in time") from None
        except (OSError, EOFError, ProtocolError) as error:
            # A master that is leaving closes before it answers; what it has read may run.
            self.close()
            raise SessionNotOpened(f"the master left: {error}", started=None) from None
        except BaseException:
            self.close()
            raise
        if isinstance(answer, SessionOpened):
            self.opened = True
            self._sock.settimeout(None)
            self._take(b"")  # the exit message may have come together with the answer
            return
        self.close()
        if isinstance(answer, Refused):
            raise SessionNotOpened(answer.reason, refused=True)
        raise SessionNotOpened(f"unexpected answer {answer}", started=None)

    def fileno(self) -> int:
        """For select(): readable when :meth:`read` has something to do."""
        return self._sock.fileno()

    def read(self, timeout: Optional[float]) -> bool:
        """Read what the master has to say. True once the session has ended.

        :param timeout: seconds to wait for it; None without limit, 0 not at all.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._sock.settimeout(left)
                data = self._sock.recv(4096)
            except (BlockingIOError, TimeoutError, socket.timeout):
                return False
            except OSError:
                data = b""
            if data:
                self._take(data)
            if not data:
                self.close()
        return True

    def close(self) -> None:
        """Let go. The remote command sees the end of its stdin, and is not ended by that."""
        self.ended = True
        self._sock.close()

    def _take(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            while True:
                message = self._decoder.next_message()
                if message is None:
                    return
                if isinstance(message, Exited):
                    self.status = message.status & 0xFF
        except ProtocolError:
            self.close()
