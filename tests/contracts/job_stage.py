"""One job, or the court, between accounts that play registry, escrow and node: fast, and free to lie."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Cell, begin_cell

from chain.api import Status
from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, account_of_name, key_of, public
from wrappers import court, job
from wrappers.addresses import Kind, singleton_address, singleton_state_init, stub_state_init
from wrappers.code import Contract, code, rare_program
from wrappers.fees import Fees
from wrappers.gas import Gas
from wrappers.ops import Op
from wrappers.prices import Prices
from wrappers.registry import genesis
from wrappers.signed import Delivery, GenesisState, JobResult, job_id, network_id, sign

RESULT, INNER, SPEC = b"\x31" * 32, b"\x32" * 32, b"\x33" * 32
TREASURY = account_of_name("treasury")


def node_program() -> Cell:
    """Of a node's rare messages: what walks through it is priced by its size."""
    return rare_program(Contract.NODE)


def stub_prefix() -> bytes:
    """The first bytes of what is hashed to a child's address, its code being the stub."""
    stub = code(Contract.STUB)
    return b"\x02\x01\x34" + stub.get_depth(0).to_bytes(2, "big") + bytes(2) + bytes(stub.hash)


def code_of(trace: Trace) -> int | None:
    """Exit code of the first transaction that failed."""
    assert trace.failed, "nothing failed"
    exit_code: int | None = trace.failed[0].exit_code
    return exit_code


@dataclass
class Stage:
    """A chain with a court and one job on it. Amounts nanoTON."""

    ledger: Ledger = field(default_factory=Ledger)
    registry: bytes = field(default_factory=lambda: account_of_name("registry"))
    escrow: bytes = field(default_factory=lambda: account_of_name("escrow"))
    node: bytes = field(default_factory=lambda: account_of_name("node"))
    other_node: bytes = field(default_factory=lambda: account_of_name("other node"))
    stranger: bytes = field(default_factory=lambda: account_of_name("stranger"))
    enclave_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("enclave"))
    delivery_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("delivery"))
    genesis_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("genesis"))

    def __post_init__(self) -> None:
        self.network = network_id(self.ledger.global_id, self.registry)
        self.prices = Prices.from_config(self.ledger.config)
        self.fees = Fees(self.prices, None)  # type: ignore[arg-type]  # none of these needs depends on parameters
        self.gas_paid, self.gas_missed = Gas.PAID, Gas.MISSED
        self.court = singleton_address(code(Contract.COURT), public(self.genesis_key), 0)
        now = self.ledger.now
        self.config = job.JobConfig(
            SPEC,
            public(self.delivery_key),
            TON,
            now + DAY,
            HOUR,
            2 * HOUR,
            frozenset((self.node, self.other_node)),
        )

    # ------------------------------------------------------------------------------------------ births

    def genesis(self, state: Cell | None = None, key: Ed25519PrivateKey | None = None) -> Trace:
        state = state or court.CourtState(self.registry, stub_prefix(), TREASURY).to_cell()
        signature = sign(GenesisState(self.ledger.global_id, self.court, bytes(state.hash)), key or self.genesis_key)
        init = singleton_state_init(code(Contract.COURT), public(self.genesis_key), 0)
        return self.ledger.send_internal(
            source=self.stranger,
            destination=self.court,
            value_nano=TON,
            body=genesis(signature, state),
            state_init=init,
        )

    def open(self, *, index: int = 0, value_nano: int | None = None, config: job.JobConfig | None = None) -> bytes:
        """A job as the registry opens it: `value_nano` is what arrives, by default the least that it may be."""
        config = config or self.config
        account, _ = self.init(index=index, value_nano=value_nano, config=config)
        assert self.state(account) is not None
        return account

    def init(
        self, *, index: int = 0, value_nano: int | None = None, config: job.JobConfig | None = None
    ) -> tuple[bytes, Trace]:
        config = config or self.config
        cell = config.to_cell()
        terms = job.job_terms(self.court, code(Contract.JOB))
        body = begin_cell().store_uint(Op.INIT, 32).store_ref(cell).store_ref(terms).end_cell()
        init = stub_state_init(self.registry, Kind.JOB, self.escrow, index)
        account = bytes(init.hash)
        least = config.maximum_nano + self.fees.job_rent(cell) + self.fees.job_init()
        value = least if value_nano is None else value_nano
        trace = self.ledger.send_internal(
            source=self.registry, destination=account, value_nano=value, body=body, state_init=init, bounce=False
        )
        return account, trace

    # ------------------------------------------------------------------------------------------ messages

    def tell(self, source: bytes, destination: bytes, value_nano: int, body: Cell | None) -> Trace:
        return self.ledger.send_internal(source=source, destination=destination, value_nano=value_nano, body=body)

    def accept(
        self, account: bytes, node: bytes | None = None, value_nano: int | None = None, program: Cell | None = None
    ) -> Trace:
        id_ = self.id_of(account, self.state(account).epoch)
        body = job.accepted(id_, 5, public(self.enclave_key), bytes((program or node_program()).hash), (1 << 32) - 1)
        return self.tell(
            node or self.node, account, self.fees.job_accepted() if value_nano is None else value_nano, body
        )

    def result(self, account: bytes, amount: int) -> JobResult:
        return JobResult(self.state(account).job_id, RESULT, amount, INNER)

    def posted(self, account: bytes, amount: int = TON // 2) -> Cell:
        return job.job_posted(RESULT, amount, INNER, sign(self.result(account, amount), self.enclave_key))

    def post(self, account: bytes, amount: int = TON // 2, value_nano: int | None = None) -> Trace:
        value = self.fees.job_posted() if value_nano is None else value_nano
        return self.tell(self.stranger, account, value, self.posted(account, amount))

    def delivery(self, account: bytes) -> Cell:
        return job.deliver(sign(Delivery(self.state(account).job_id, RESULT), self.delivery_key))

    def brought_to(self, phase: job.Phase, index: int = 0) -> bytes:
        account = self.open(index=index)
        if phase is not job.Phase.OPEN:
            assert not self.accept(account).failed
        if phase is job.Phase.POSTED:
            assert not self.post(account).failed
        assert self.state(account).phase is phase
        return account

    # ------------------------------------------------------------------------------------------ state

    def state(self, account: bytes) -> job.JobState:
        data = self.ledger.account(account).data
        assert data is not None
        state = job.JobState.from_cell(data)
        assert state is not None
        return state

    def alive(self, account: bytes) -> bool:
        return self.ledger.account(account).status is Status.ACTIVE

    def id_of(self, account: bytes, epoch: int) -> bytes:
        return job_id(self.network, account, epoch, SPEC)
