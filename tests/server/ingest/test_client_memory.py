"""Memory of clients that ingest reads payloads from: what is taken, what is not, and what a bad client can do with it."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ingest_rig import PEER, Rig, values_of

from other_user import STRANGER, as_user, needs_root
from penstock_client.reasons import Reason
from penstock_client.shared_memory import SharedMemory, boot_id
from penstock_client.stream_payloads import Reference, Share
from penstock_client.wire import Header, Kind, take_reference_bit
from penstock_server.ingest import client_memories
from penstock_server.ingest.client_memory import ClientMemory, NotTaken

SIZE = 1 << 20
OFFERS = """
import sys
from penstock_client.shared_memory import SharedMemory
memory = SharedMemory(1 << 20)
print(memory.share().pack().hex(), flush=True)
sys.stdin.read()
"""


def offer(rig: Rig, share: Share, peer: bytes = PEER) -> bool:
    """Whether the ingest takes this memory."""
    ((header, _), *_) = rig.say(Header(Kind.SHARE, 7, 0, 1).pack(), share.pack(), peer=peer)
    assert header.kind is Kind.SHARED
    return header.count == 1


def by_reference(message: list[bytes], offset: int, size: int) -> list[bytes]:
    """The message with a reference in place of its payload."""
    header = bytearray(message[0])
    header[6] |= 0x80
    assert take_reference_bit(bytes(header)) == (message[0], True)
    return [bytes(header), Reference(offset, size).pack()]


def made(seals: int, *, size: int = SIZE, token: bytes = b"t" * 16, name: str = "penstock") -> tuple[int, Share]:
    """Memory as a client could make it: its descriptor and what the client says of it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    os.pwrite(descriptor, token, 0)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor, Share(boot_id(), os.getpid(), descriptor, size, token)


def mapped() -> int:
    """How many memories of clients this process has mapped; those of earlier tests are gone."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/memfd:penstock")


@pytest.fixture
def rig() -> Rig:
    rig = Rig(credit=SIZE)
    rig.begin()
    return rig


@contextmanager
def client_process(*prefix: str) -> Iterator[tuple[subprocess.Popen[str], Share]]:
    """Another process that offers memory."""
    command = [*prefix, sys.executable, "-c", OFFERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Share.unpack(bytes.fromhex(process.stdout.readline()))
        process.kill()


def test_a_time_step_by_reference_is_the_same_sample(rig: Rig) -> None:
    memory = SharedMemory(SIZE)
    assert offer(rig, memory.share())
    assert rig.metrics.total("shared_memory_connections") == 1
    u, p = values_of(3)
    memory._bytes[64 : 64 + u.nbytes], memory._bytes[4096 : 4096 + p.nbytes] = u, p
    rig.say(*by_reference(rig.piece("U", u, 3), 64, u.nbytes), *by_reference(rig.piece("p", p, 3), 4096, p.nbytes))
    assert rig.end().accepted == 2
    other = Rig(credit=SIZE)
    other.begin()
    other.say(*other.step(3))
    ours, theirs = (r.buffer.try_get(1) for r in (rig, other))
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(ours.targets, theirs.targets)
    np.testing.assert_array_equal(ours.inputs, theirs.inputs)
    memory.close()


def test_the_same_memory_offered_again_stays_mapped_once(rig: Rig) -> None:
    before, memory = mapped(), SharedMemory(SIZE)
    assert offer(rig, memory.share())
    assert offer(rig, memory.share())
    assert rig.metrics.total("shared_memory_connections") == 1
    other = SharedMemory(SIZE)
    assert offer(rig, other.share())
    other.close()
    memory.close()
    assert mapped() == before + 1  # the server's own mapping, of the second


GOOD = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x10
SPOILED: list[tuple[str, int, Callable[[Share], Share]]] = [
    ("may shrink", fcntl.F_SEAL_GROW | 0x10, lambda s: s),
    ("may lose pages", fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, lambda s: s),
    ("not sealed", 0, lambda s: s),
    ("other token", GOOD, lambda s: replace(s, token=secrets.token_bytes(16))),
    ("other machine", GOOD, lambda s: replace(s, boot=bytes(16))),
    ("other size", GOOD, lambda s: replace(s, size=s.size - 4096)),
    ("no bytes", GOOD, lambda s: replace(s, size=0)),
    ("too large", GOOD, lambda s: replace(s, size=2**63)),
    ("closed descriptor", GOOD, lambda s: replace(s, descriptor=2**31 - 1)),
    ("standard input", GOOD, lambda s: replace(s, descriptor=0)),
    ("no process", GOOD, lambda s: replace(s, pid=2**32 - 1)),
    ("first process", GOOD, lambda s: replace(s, pid=1)),
]


@pytest.mark.parametrize(("name", "seals", "say"), SPOILED, ids=[s[0] for s in SPOILED])
def test_memory_that_is_not_as_it_must_be_is_not_taken(rig: Rig, name: str, seals: int, say) -> None:
    before = mapped()
    descriptor, share = made(seals)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    assert not offer(rig, say(share)), name
    assert mapped() == before
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    refuse = rig.refusal(*by_reference(rig.piece("p", values_of(0)[1]), 64, 24))
    assert refuse.reason is Reason.NO_BEGIN
    rig.say(*rig.step(1))  # in messages it goes on
    assert rig.buffer.stats().population == 1
    os.close(descriptor)


def test_other_files_are_not_read(rig: Rig, tmp_path: Path) -> None:
    descriptor, share = made(GOOD, name="other")
    assert not offer(rig, share)
    secret = tmp_path / "keys.json"
    secret.write_bytes(b"t" * SIZE)
    with secret.open("rb") as file:
        assert not offer(rig, replace(share, descriptor=file.fileno()))
    pipe = os.pipe()
    assert not offer(rig, replace(share, descriptor=pipe[0]))  # and nobody waits for its other end
    for other in (descriptor, *pipe):
        os.close(other)


def test_memory_of_huge_pages_is_not_taken() -> None:
    descriptor = os.memfd_create("penstock", os.MFD_HUGETLB | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 2 * SIZE)
    share = Share(boot_id(), os.getpid(), descriptor, 2 * SIZE, b"t" * 16)
    with pytest.raises(NotTaken, match="huge pages"):
        ClientMemory(share, 2 * SIZE)
    os.close(descriptor)


def test_no_memory_is_taken_where_the_study_says_so() -> None:
    rig, memory = Rig(credit=SIZE, shared_memory=False), SharedMemory(SIZE)
    rig.begin()
    assert not offer(rig, memory.share())
    memory.close()


def test_a_key_gets_so_many_and_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_memories, "MAX_FOR_A_KEY", 2)
    memories = [SharedMemory(SIZE) for _ in range(3)]
    assert [offer(rig, m.share(), peer=b"%d" % n) for n, m in enumerate(memories)] == [True, True, False]
    for memory in memories:
        memory.close()


def test_descriptors_are_left_for_connections(rig: Rig) -> None:
    memory, limits = SharedMemory(SIZE), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (memory.share().descriptor + 6, limits[1]))
    try:
        assert not offer(rig, memory.share())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert offer(rig, memory.share())
    memory.close()


far = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2 * mmap.PAGESIZE), st.just(SIZE))


@settings(max_examples=200)
@given(offset=far, size=far)
def test_references_to_anywhere_are_refused_and_allocate_nothing(offset: int, size: int) -> None:
    assume(size != 24)  # the right one
    descriptor, share = made(GOOD)  # of which only the first page has been written
    rig = RIGS.setdefault("garbage", Rig(credit=SIZE))
    rig.begin()
    blocks, written = os.fstat(descriptor).st_blocks, os.lseek(descriptor, 0, os.SEEK_HOLE)
    assert offer(rig, share)
    values = np.zeros(6, "<f4")
    refuse = rig.refusal(*by_reference(rig.piece("p", values), offset, size))
    assert refuse.reason is (Reason.SIZE if offset + size <= written and size else Reason.MALFORMED)
    assert os.fstat(descriptor).st_blocks == blocks < SIZE // 512
    os.close(descriptor)


RIGS: dict[str, Rig] = {}


@pytest.mark.parametrize("frame", [b"", bytes(15), bytes(17), b"\xff" * 16])
def test_a_reference_of_another_length_is_refused(rig: Rig, frame: bytes) -> None:
    memory = SharedMemory(SIZE)
    assert offer(rig, memory.share())
    header, _ = by_reference(rig.piece("p", values_of(0)[1]), 64, 24)
    assert rig.refusal(header, frame).reason is Reason.MALFORMED
    memory.close()


@pytest.mark.parametrize("kind", [k for k in Kind if k not in (Kind.PIECE, Kind.BLOCK)])
def test_only_field_values_come_by_reference(rig: Rig, kind: Kind) -> None:
    refuse = rig.refusal(Header(kind, 7, 0, 1).pack(reference=True), Reference(0, 16).pack())
    assert refuse.reason is Reason.MALFORMED
    assert "reference to shared memory" in refuse.text


def test_values_that_change_while_they_are_read_are_checked_as_they_are_kept(rig: Rig) -> None:
    memory = SharedMemory(SIZE)
    assert offer(rig, memory.share())
    p = values_of(0)[1]
    memory._bytes[64 : 64 + p.nbytes] = np.full_like(p, np.nan)
    assert rig.refusal(*by_reference(rig.piece("p", p), 64, p.nbytes)).reason is Reason.NOT_FINITE
    payload = rig.ingest._payload_of(
        rig.ingest._streams.connection(PEER), Header(Kind.PIECE), Reference(64, p.nbytes).pack()
    )
    memory._bytes[64 : 64 + p.nbytes] = p
    assert np.isnan(np.frombuffer(payload, "<f4")).all()  # a copy
    memory.close()


def test_the_memory_of_a_killed_client_is_given_back(rig: Rig) -> None:
    before, descriptors = mapped(), len(list(Path("/proc/self/fd").iterdir()))
    with client_process() as (process, share):
        assert offer(rig, share)
        assert mapped() == before + 1
        for _ in range(3):
            rig.ingest.tick()
        assert mapped() == before + 1  # while the client lives
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What it had sent can still be read, even now; then nothing is left.
        assert rig.refusal(*by_reference(rig.piece("p", values_of(0)[1]), 0, 16)).reason is Reason.SIZE
        rig.ingest.tick()
        assert mapped() == before + 1
        rig.ingest.tick()
        assert mapped() == before
    assert rig.refusal(*by_reference(rig.piece("p", values_of(0)[1]), 0, 16)).reason is Reason.NO_BEGIN
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@needs_root
def test_a_client_in_another_process_namespace_uses_messages(rig: Rig) -> None:
    with client_process("unshare", "--pid", "--fork", "--kill-child") as (_, share):
        assert not offer(rig, share)


@needs_root
def test_a_client_of_another_user_uses_messages(rig: Rig) -> None:
    def offered() -> bool:
        memory = SharedMemory(SIZE)
        ours.send(memory.share().pack())
        return bool(ours.recv(1))

    ours, theirs = socket.socketpair()
    said: list[str] = []
    with ours, theirs:
        waiter = threading.Thread(target=lambda: said.append(as_user(STRANGER, offered)))
        waiter.start()
        assert not offer(rig, Share.unpack(theirs.recv(100)))
        theirs.send(b"x")
        waiter.join()
    assert said == ["True"]
