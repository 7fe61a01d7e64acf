"""What the enclave signed for: accounts per allotment, the receipts that claims cover, and the claims themselves.

Facts about the chain come through the agent. A lie there can only make claims that the chain refuses or that pay the
operator less; nothing here lets it raise what a client pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pytoniq_core import Cell

from protocol.account import MAX_UNACKED
from protocol.enclave_account import EnclaveAccount
from protocol.errors import Code, WireError
from protocol.frames import Refusal
from protocol.opening import Opening
from protocol.receipts import IssuedReceipt
from protocol.sealing import SealedRequest
from worker.enclave.keys import Keys
from worker.messages import ClaimLine
from wrappers.claims import ClaimEntry, Entry, batch, claim_message, receipts_root
from wrappers.receipts import InnerReceipt, Receipt
from wrappers.signed import Claim, Notary, sign


class BooksError(Exception):
    """The agent asked for something that these books cannot give. Says why and what to do."""


@dataclass(slots=True)
class _Account:
    escrow: bytes
    epoch: int
    voucher_key: bytes
    state: EnclaveAccount
    unlanded: list[Receipt] = field(default_factory=list)
    """Receipts since the last claim that the agent knows to have landed, oldest first."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A receipt and the account it belongs to, as the agent must store them."""

    escrow: bytes
    epoch: int
    receipt: IssuedReceipt
    account: EnclaveAccount


class Books:
    """`node` is the node's account, `node_id` its id. Amounts nanoTON."""

    def __init__(self, keys: Keys, node: bytes, node_id: bytes, tokens: int, max_unacked: int = MAX_UNACKED) -> None:
        self._keys = keys
        self._node = node
        self._node_id = node_id
        self._tokens = tokens
        self._max_unacked = max_unacked
        self._accounts: dict[bytes, _Account] = {}

    def authority(self, request: SealedRequest, voucher_key: bytes) -> WireError | None:
        """Why this key may not speak for the allotment.

        The first voucher key that signed under an allotment stays its key: whoever else the agent would let in under it
        could put receipts into this client's chain.
        """
        account = self._accounts.get(request.voucher.allotment)
        if account is not None and account.voucher_key != voucher_key:
            return WireError.of(Code.VOUCHER_INVALID, "this allotment is served to another voucher key")
        return None

    def admit(self, request: SealedRequest, opening: Opening, voucher_key: bytes) -> Refusal | None:
        """Count the request in, or say why not. Call `request.check_authority` and `authority` before."""
        voucher = request.voucher
        account = self._accounts.get(voucher.allotment)
        if account is None:
            state = EnclaveAccount(voucher.allotment, self._node_id, self._keys.public)
            account = _Account(request.escrow, request.allotment_epoch, voucher_key, state)
            self._accounts[voucher.allotment] = account
        account.state, refusal = account.state.admit(
            voucher,
            request.voucher_signature,
            request_id=request.request_id,
            maximum_nano=opening.maximum_nano,
            terms=opening.terms,
            acked_seq=opening.acked_seq,
            max_unacked=self._max_unacked,
        )
        return refusal

    def issue(self, allotment: bytes, request_id: bytes, inner: InnerReceipt) -> Issue:
        """Sign the receipt that ends an admitted request."""
        account = self._accounts[allotment]
        account.state, issued = account.state.issue(request_id, inner, self._keys.signing)
        account.unlanded.append(issued.signed.receipt)
        self._tokens += inner.prompt_tokens + inner.completion_tokens
        return Issue(account.escrow, account.epoch, issued, account.state)

    def claim(self, seqno: int, valid_until: int, lines: Sequence[ClaimLine]) -> Cell:
        """A signed batch claim over these accounts, as an external message. Raises BooksError."""
        entries = tuple(self._entry(line) for line in lines)
        try:
            entries_cell, roots_cell = batch(entries)
        except ValueError as error:
            raise BooksError(str(error)) from error
        header = Claim(
            self._node_id,
            seqno,
            valid_until,
            len(entries),
            self._tokens,
            bytes(entries_cell.hash),
            bytes(roots_cell.hash),
        )
        signature = sign(header, self._keys.signing)
        return claim_message(self._node, signature, seqno, valid_until, self._tokens, entries)

    def notarise(self, allotment: bytes) -> tuple[int, bytes, bytes]:
        """(seq, hash, signature over `Notary`) of the latest receipt. Raises BooksError.

        Nothing but hashes of receipts is signed so: a notarised hash says that this key issued what hashes to it.
        """
        account = self._accounts.get(allotment)
        if account is None or not account.state.seq:
            raise BooksError(
                f"this key has signed no receipt for allotment {allotment.hex()}; nothing can be notarised"
            )
        state = account.state
        return state.seq, state.previous, sign(Notary(self._node_id, state.previous), self._keys.signing)

    def _entry(self, line: ClaimLine) -> ClaimEntry:
        account = self._accounts.get(line.allotment)
        if account is None or account.escrow != line.escrow:
            raise BooksError(
                f"no receipts were signed for allotment {line.allotment.hex()} by this key; "
                "claim what an earlier key signed by its latest receipt"
            )
        state = account.state
        if state.voucher is None or not state.seq:
            raise BooksError(f"allotment {line.allotment.hex()} has no receipt yet; leave it out of the claim")
        account.unlanded = [receipt for receipt in account.unlanded if receipt.seq > line.landed_seq]
        entry = Entry(
            state.cumulative_nano,
            state.seq,
            state.voucher.cap_nano,
            state.voucher.acked_nano,
            state.voucher.terms,
            state.voucher_signature,
        )
        return ClaimEntry(account.escrow, entry, receipts_root(account.unlanded))
