"""Jobs, the singletons, and accounts that are not born yet."""

from __future__ import annotations

from collections.abc import Iterator

from app.audit.core.facts import Facts, Finding, Line
from app.audit.core.history import strangers_paid
from attestation.onchain.state import VerifierState
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.committee import CommitteeState
from wrappers.court import CourtState
from wrappers.job import JobState, Phase
from wrappers.registry import RegistryState
from wrappers.signed import job_id, network_id


def job_lines(state: JobState, balance_nano: int) -> tuple[Line, ...]:
    escrow, config = state.owner.hex(), state.config
    if state.outcome is not None and state.acceptance is not None:
        owed = min(state.outcome.amount_nano, balance_nano)
        node = state.acceptance.node.hex()
        when = f"at {state.payable_at}, or at once on the client's word"
        found = [Line(node, f"price of the delivered result: paid {when}", owed)]
    else:
        owed = min(config.maximum_nano, balance_nano)
        phase = "accepted" if state.phase is Phase.ACCEPTED else "offered"
        what = f"price of the {phase} job: the node's on delivery, the escrow's from {state.refundable_at}"
        found = [Line(escrow, what, owed)]
    found.append(Line(escrow, "rent and gas of the job: what is left comes back at its end", balance_nano - owed))
    return tuple(line for line in found if line.nano)


def check_job(facts: Facts, state: JobState) -> Iterator[Finding]:
    address = child_address(state.registry, Kind.JOB, state.owner, state.index)
    yield Finding("the address follows from registry, escrow and index", address == facts.account, state.owner.hex())
    network = network_id(facts.global_id, state.registry)
    bound = state.job_id == job_id(network, facts.account, state.epoch, state.config.spec)
    yield Finding("it is bound to this network", bound, state.registry.hex())
    balance, maximum = facts.state.balance_nano, state.config.maximum_nano
    yield Finding("balance >= the most that the result may cost", balance >= maximum, f"{balance} >= {maximum}")
    if state.outcome is not None:
        amount = state.outcome.amount_nano
        yield Finding("the result costs no more than was allowed", amount <= maximum, f"{amount} <= {maximum}")
    if state.acceptance is not None:
        allowed = state.acceptance.node in state.config.nodes
        yield Finding("an allowed node accepted", allowed, state.acceptance.node.hex())
    yield Finding("a result has an accepting node", state.outcome is None or state.acceptance is not None)
    if facts.history is not None:
        named = {state.owner, *state.config.nodes, state.court}
        strangers = strangers_paid(facts.history, named)
        rule = "money left only to its escrow, its node, the court, and back to who had sent it"
        yield Finding(rule, not strangers, "; ".join(strangers))


def singleton_lines(what: str, balance_nano: int) -> tuple[Line, ...]:
    line = Line("nobody", f"the {what}'s own rent and gas: no message takes it out", balance_nano)
    return (line,) if balance_nano else ()


def check_registry(facts: Facts, state: RegistryState) -> Iterator[Finding]:
    network = network_id(facts.global_id, facts.account)
    yield Finding("it is bound to this network and to itself", state.network_id == network, network.hex())
    yield from _keeps(facts)


def check_attestation(facts: Facts, state: VerifierState) -> Iterator[Finding]:
    network = network_id(facts.global_id, state.registry)
    yield Finding("it is bound to this network", state.network_id == network, state.registry.hex())
    live = [entry.node for entry in state.platforms.values() if entry.node is not None]
    said = f"{len(live)} nodes on {len(live)} platforms"
    yield Finding("no node holds two platforms", len(live) == len(set(live)), said)
    if state.simulated:
        yield Finding(
            "the test root is not mainnet's", facts.global_id != -239, "SIMULATED: its verdicts prove no hardware"
        )
    yield from _keeps(facts)


def check_court(facts: Facts, state: CourtState) -> Iterator[Finding]:
    yield Finding("it names a treasury", any(state.treasury), state.treasury.hex())
    yield from _keeps(facts)


def committee_lines(state: CommitteeState, balance_nano: int) -> tuple[Line, ...]:
    members = state.members.items()
    found = [
        Line(one.payout.hex(), f"bond of member {owner.hex()}: leaves with it, or is slashed", one.bond_nano)
        for owner, one in members
    ]
    rest = balance_nano - sum(line.nano for line in found)
    what = f"fees of {len(state.requests)} open requests, and the committee's own rent and gas"
    return tuple(line for line in (*found, Line("nobody", what, rest)) if line.nano)


def check_committee(facts: Facts, state: CommitteeState) -> Iterator[Finding]:
    bonds = sum(one.bond_nano for one in state.members.values())
    balance = facts.state.balance_nano
    yield Finding("balance >= the members' bonds", balance >= bonds, f"{balance} >= {bonds}")


def _keeps(facts: Facts) -> Iterator[Finding]:
    """A singleton passes on what a message brings, and no more."""
    if facts.history is None:
        return
    lost = []
    for one in facts.history:
        sent = sum(message.value_nano for message in one.out_msgs)
        came = one.in_msg.value_nano if one.in_msg is not None and not one.in_msg.external else 0
        if sent > came:
            lost.append(f"{sent} at lt {one.lt}, where {came} came")
    yield Finding("no message took out more than it had brought", not lost, "; ".join(lost))


def decode_job(facts: Facts) -> JobState:
    """Raises CellError."""
    assert facts.state.data is not None
    state = JobState.from_cell(facts.state.data)
    if state is None:
        raise CellError("a job before its birth")
    return state
