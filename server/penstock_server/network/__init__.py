"""Sockets, who may use them, and the files that tell clients where they are."""

from penstock_server.network.address import interface_addresses, interface_of, is_network, own_address
from penstock_server.network.admissions import Admissions, Assignment
from penstock_server.network.connect_files import (
    CONNECT_FILE,
    hand_out,
    local_connect_file,
    local_worker,
    next_incarnation,
    write_connect_file,
)
from penstock_server.network.keys import DEFAULT, KEYS_FILE, StudyKeys, load_keys, open_keys, revoke_worker
from penstock_server.network.messages import MAX_RANKS, MAX_TEXT, Envelope, Frames, Message, refusal_of
from penstock_server.network.router import RouterLoop

__all__ = [
    "CONNECT_FILE",
    "DEFAULT",
    "KEYS_FILE",
    "MAX_RANKS",
    "MAX_TEXT",
    "Admissions",
    "Assignment",
    "Envelope",
    "Frames",
    "Message",
    "RouterLoop",
    "StudyKeys",
    "hand_out",
    "interface_addresses",
    "interface_of",
    "is_network",
    "load_keys",
    "local_connect_file",
    "local_worker",
    "next_incarnation",
    "open_keys",
    "own_address",
    "refusal_of",
    "revoke_worker",
    "write_connect_file",
]
