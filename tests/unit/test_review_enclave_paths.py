"""The agent names the socket that the enclave listens on: it must not be able to have a file removed by that."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from attestation.evidence import Evidence, Kind
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee
from worker.enclave.direct import Direct
from worker.enclave.keys import Keys
from worker.enclave.server_socket import listen
from worker.messages import Certified, Certify, Failed

NOW = int(time.time())


def order(key: bytes, path: Path) -> Certify:
    binding = Binding(b"n" * 32, b"o" * 32, 41, key, bytes(32), 1_000, b"r" * 32)
    evidence = Evidence(Kind.SIMULATED, SimulatedTee(b"a test machine").quote(binding.report_data()), binding)
    return Certify(evidence.to_json().encode(), mint(NOW).to_json().encode(), str(path), str(path.parent / "inner"))


async def test_g12_an_agent_cannot_have_a_revocation_list_removed(tmp_path: Path) -> None:
    crl = tmp_path / "nvidia.crl"
    crl.write_bytes(b"revoked")
    link = tmp_path / "link"
    link.symlink_to(crl)
    keys = Keys(3600)
    direct = Direct(keys)
    for path in (crl, link):
        answer = await direct.certify(order(keys.public, path), NOW)
        assert isinstance(answer, Failed) and "is no socket" in answer.cause
    assert crl.read_bytes() == b"revoked" and link.is_symlink()
    assert isinstance(await direct.certify(order(keys.public, tmp_path / "tls"), NOW), Certified)
    await direct.close()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "enclave.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    listen(path).close()
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="is no socket"):
        listen(path)
