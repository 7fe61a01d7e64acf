"""A committee between accounts that play nodes and the verifier: fast, and free to lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from job_stage import stub_prefix
from pytoniq_core import Cell

from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, account_of_name, key_of, public
from wrappers import committee_messages
from wrappers.addresses import Kind, child_address, singleton_address, singleton_state_init
from wrappers.code import Contract, code
from wrappers.committee import CommitteeState, CommitteeTerms, CommitteeVerdict, Request
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import Ask, Presented, place_of
from wrappers.documents import document_cell
from wrappers.prices import Prices
from wrappers.registry import genesis
from wrappers.signed import GenesisState, network_id, sign

POLICY = b"\x61" * 32
EVIDENCE, COLLATERAL = document_cell(b"evidence" * 200), document_cell(b"collateral" * 500)
MEASUREMENT, PLATFORM = b"\x62" * 32, b"\x63" * 32
EPOCH = 77


@dataclass
class Verifier:
    """Who answers: one owner with one node."""

    owner: bytes
    node: bytes
    key: Ed25519PrivateKey
    platform: bytes
    payout: bytes


@dataclass
class Stage:
    ledger: Ledger = field(default_factory=Ledger)
    registry: bytes = field(default_factory=lambda: account_of_name("registry"))
    attestation: bytes = field(default_factory=lambda: account_of_name("attestation"))
    treasury: bytes = field(default_factory=lambda: account_of_name("treasury"))
    stranger: bytes = field(default_factory=lambda: account_of_name("stranger"))
    enclave_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("snp enclave"))
    genesis_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("genesis"))
    seats: int = 5
    quorum: int = 3
    owners: list[bytes] = field(default_factory=list)
    """Instead of hashes of names."""

    def __post_init__(self) -> None:
        self.node = child_address(self.registry, Kind.NODE, self.stranger, 0)
        """Of the stranger, who asks: so in the node's own place."""
        self.network = network_id(self.ledger.global_id, self.registry)
        self.terms = CommitteeTerms(
            self.registry, stub_prefix(), POLICY, self.seats, self.quorum, 2 * HOUR, self.attestation, self.treasury,
            10 * TON, TON // 20,
        )  # fmt: skip
        self.fees = CommitteeFees(Prices.from_config(self.ledger.config), self.terms)
        self.account = singleton_address(code(Contract.COMMITTEE), public(self.genesis_key), 0)

    # ------------------------------------------------------------------------------------------ birth and members

    def genesis(self, terms: CommitteeTerms | None = None) -> Trace:
        state = (terms or self.terms).to_cell()
        signature = sign(GenesisState(self.ledger.global_id, self.account, bytes(state.hash)), self.genesis_key)
        init = singleton_state_init(code(Contract.COMMITTEE), public(self.genesis_key), 0)
        return self.ledger.send_internal(
            source=self.stranger, destination=self.account, value_nano=5 * TON, body=genesis(signature, state),
            state_init=init,
        )  # fmt: skip

    def verifier(self, index: int) -> Verifier:
        owner = self.owners[index] if self.owners else account_of_name(f"owner {index}")
        return Verifier(
            owner,
            child_address(self.registry, Kind.NODE, owner, 0),
            key_of(f"verifier {index}"),
            account_of_name(f"platform {index}"),
            account_of_name(f"payout {index}"),
        )

    def presented(self, who: Verifier, **changes: object) -> Presented:
        told = Presented(who.owner, 0, public(who.key), 1, self.ledger.now + 6 * DAY, who.platform, who.payout)
        return replace(told, **changes)  # type: ignore[arg-type]

    def present(
        self, who: Verifier, value_nano: int | None = None, source: bytes | None = None, **changes: object
    ) -> Trace:
        value = self.fees.join() if value_nano is None else value_nano
        return self.tell(self.presented(who, **changes).to_cell(), value, source or who.node)

    def join(self, count: int) -> list[Verifier]:
        members = [self.verifier(index) for index in range(count)]
        for member in members:
            assert not self.present(member).failed
        return members

    # ------------------------------------------------------------------------------------------ requests

    def question(self, **changes: object) -> Ask:
        block = self.ledger.prev_blocks.hundreds[0]
        ask = Ask(
            self.node, EPOCH, public(self.enclave_key), self.ledger.now + 3 * DAY, block.seqno, MEASUREMENT, PLATFORM,
            EVIDENCE, COLLATERAL,
        )  # fmt: skip
        return replace(ask, **changes)  # type: ignore[arg-type]

    def ask(self, value_nano: int | None = None, **changes: object) -> Trace:
        return self.tell(self.question(**changes).to_cell(), self.fees.ask() if value_nano is None else value_nano)

    def place(self, node: bytes | None = None) -> bytes:
        """Where the stranger's question about `node` stands."""
        return place_of(node or self.node, own=(node or self.node) == self.node)

    def wait_for_block(self, node: bytes | None = None) -> None:
        while self.ledger.prev_blocks.hundreds[0].seqno < self.request(node).draw_at:
            self.ledger.now += 60

    def draw(self, node: bytes | None = None, value_nano: int | None = None) -> Trace:
        value = self.fees.draw() if value_nano is None else value_nano
        return self.tell(committee_messages.draw(self.place(node)), value)

    def drawn(self, members: int = 7) -> list[Verifier]:
        """A request with its seats drawn: the verifiers who hold them."""
        everybody = self.join(members)
        assert not self.ask().failed
        self.wait_for_block()
        assert not self.draw().failed
        seats = self.request().seats
        return [each for each in everybody if each.owner in seats]

    def signed(self, who: Verifier, accepted: bool, question: bytes | None = None) -> bytes:
        return sign(CommitteeVerdict(question or self.request().question.hash, accepted), who.key)

    def answer(self, who: Verifier, accepted: bool = True, value_nano: int | None = None) -> Trace:
        body = committee_messages.answer(self.node, who.owner, accepted, self.signed(who, accepted))
        return self.tell(body, self.fees.answer() if value_nano is None else value_nano)

    def conclude(self, value_nano: int | None = None) -> Trace:
        value = self.fees.conclude(admitted=True) if value_nano is None else value_nano
        return self.tell(committee_messages.conclude(self.node), value)

    def past_deadline(self) -> None:
        self.ledger.now = self.request().deadline + 1

    def tell(self, body: Cell, value_nano: int, source: bytes | None = None) -> Trace:
        return self.ledger.send_internal(
            source=source or self.stranger, destination=self.account, value_nano=value_nano, body=body
        )

    # ------------------------------------------------------------------------------------------ state

    @property
    def state(self) -> CommitteeState:
        data = self.ledger.account(self.account).data
        assert data is not None
        return CommitteeState.from_cell(data)

    def request(self, node: bytes | None = None) -> Request:
        return self.state.requests[self.place(node)]
