"""Several accounts together: what one sent the other received, once, and nothing came from nowhere (G2, G4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.audit.core.facts import Facts, Finding
from app.audit.core.history import brought, fees
from chain.api import Status


def check_between(all_facts: Sequence[Facts]) -> tuple[Finding, ...]:
    """For accounts whose histories were all read."""
    known = {facts.account: facts for facts in all_facts if facts.history is not None}
    sent: dict[bytes, int] = {}
    arrived: Counter[bytes] = Counter()
    outside_in = outside_out = taken = 0
    for facts in known.values():
        for one in facts.history or ():
            taken += fees(one)
            if one.in_msg is not None and not one.in_msg.external:
                if one.in_msg.source in known:
                    arrived[one.in_msg.hash] += 1
                else:
                    outside_in += brought(one)
            for message in one.out_msgs:
                if message.destination in known:
                    sent[message.hash] = message.value_nano
                else:
                    outside_out += message.value_nano
    twice = [hash_.hex() for hash_, count in arrived.items() if count > 1]
    on_the_way = sum(value for hash_, value in sent.items() if hash_ not in arrived)
    # From an account's life before its present one, to which no history leads; or sent after it was read.
    unknown = {hash_ for hash_ in arrived if hash_ not in sent}
    earlier = sum(
        brought(one)
        for facts in known.values()
        for one in facts.history or ()
        if one.in_msg is not None and one.in_msg.hash in unknown
    )
    balances = sum(facts.state.balance_nano for facts in known.values() if facts.state.status is not Status.ABSENT)
    made = outside_in + earlier - outside_out - taken - on_the_way
    said = f"{outside_in} came from outside"
    said += f", {earlier} from lives that have ended" if earlier else ""
    said += f" - {outside_out} left - {taken} fees - {on_the_way} on the way = {made}, balances {balances}"
    return (
        Finding("no message between these accounts arrived twice", not twice, ", ".join(twice)),
        Finding("balances together = what came - what left - fees", made == balances, said),
    )
