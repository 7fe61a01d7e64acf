"""Intel's root key is both of its coordinates: any other key is a test root, which proves no hardware (G14)."""

from __future__ import annotations

from attestation_mirror import INTEL_KEY

from attestation.onchain.hints import P
from devnet.ledger import Ledger
from scripts.attest_stage import Stage
from wrappers.errors import ContractError


def test_g14_a_key_with_intels_y_alone_is_a_test_root() -> None:
    """Two more points of the curve have that y, for x^3 - 3x is the same there. Nobody is known to have their secrets,
    but what the network calls hardware rests on none of that."""
    x, y = int.from_bytes(INTEL_KEY[:32], "big"), INTEL_KEY[32:]
    root = pow(12 - 3 * x * x, (P + 1) // 4, P)
    for other in ((root - x) * pow(2, -1, P) % P, (-root - x) * pow(2, -1, P) % P):
        assert other != x and (other**3 - 3 * other - x**3 + 3 * x) % P == 0
        key = other.to_bytes(32, "big") + y
        stage = Stage(Ledger(), key)
        assert not stage.deploy().failed
        assert stage.ledger.run_get(stage.account, "get_attestation")[2] == -1
        refused = Stage(Ledger(global_id=-239), key)
        assert refused.outcome(refused.deploy()).exit_code == ContractError.MAIN_NETWORK
