"""Who may speak: CURVE on every socket, and a ZAP allow-list that follows keys.json while the server runs."""

from __future__ import annotations

import logging
import threading

import zmq
from zmq.auth.thread import ThreadAuthenticator

from penstock_server.network.keys import KeysError, StudyKeys, load_keys
from penstock_server.telemetry import Metrics

_log = logging.getLogger("penstock.auth")


class AllowList:
    """The workers that may connect, as keys.json has them now. Any thread may call anything.

    Args:
        keys: as read at the start; the file is read again when it changes.
        metrics: counts the handshakes that are refused.

    Attributes:
        withdrawn: public keys that this list once allowed and no longer does; their connections may still be open.
    """

    def __init__(self, keys: StudyKeys, metrics: Metrics) -> None:
        self._path, self._metrics = keys.path, metrics
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._allowed = keys.allowed()
        self._revoked = keys.revoked()
        self.withdrawn: frozenset[str] = frozenset()
        self._news: list[str] = []  # names of keys that were withdrawn and not reported yet
        self.refresh()

    def refresh(self) -> None:
        """Read keys.json again if it has changed. If it cannot be used, keep the list as it is and log that once."""
        with self._lock:
            try:
                found = self._path.stat()
                seen: tuple[int, ...] = (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)
            except OSError:
                seen = (-1,)
            if seen == self._seen:
                return
            self._seen = seen
            try:
                keys = load_keys(self._path)
            except KeysError as error:
                self._metrics.keys_unusable.inc()
                _log.warning("keys.json cannot be used, the workers known so far stay: %s", error)
                return
            allowed = keys.allowed()
            self._news += [name for key, name in self._allowed.items() if key not in allowed]
            self.withdrawn = (self.withdrawn | self._allowed.keys()) - allowed.keys()
            self._allowed, self._revoked = allowed, keys.revoked()

    def name_of(self, message: zmq.Frame) -> str:
        """Return the name of the key with which the sender of a message is connected."""
        return self._allowed.get(str(message.get("User-Id")), "")

    def take_withdrawn(self) -> list[str]:
        """Return the names of the keys that were withdrawn since the last call."""
        if not self._news:
            return []
        with self._lock:
            news, self._news = self._news, []
            return news

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - one domain
        """Return whether a client may connect; the authenticator asks at each handshake.

        Args:
            domain: not used; there is only one.
            key: the client's public key, Z85.
        """
        self.refresh()
        public = key.decode()
        if public in self._allowed:
            return True
        self._metrics.handshake_refused("revoked_key" if public in self._revoked else "unknown_key")
        return False

    def still_allows(self, message: zmq.Frame) -> bool:
        """Return whether the sender of a message still may speak: its key may have been revoked since it connected."""
        # Whoever has a connection was let in by `callback`: only withdrawn keys need to be looked for.
        return not self.withdrawn or message.get("User-Id") not in self.withdrawn


def secure_context(allow: AllowList) -> tuple[zmq.Context[zmq.Socket[bytes]], ThreadAuthenticator]:
    """Make a context whose CURVE sockets admit only the clients on a list.

    Each socket's context has an authenticator of its own: ZAP works within one context, and a context for each socket
    lets either loop end without the other.

    Args:
        allow: the list.

    Returns:
        The context, and its authenticator, to be stopped before the context ends. The metadata "User-Id" of a message
        is the public key of its sender (Z85).
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", allow)
    return context, authenticator
