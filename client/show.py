"""What `cocoon client` prints: one fact per line, nothing cut, strangers' texts made printable."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from client.events import Receipted

NANO = 1_000_000_000
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def ton(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d} TON"


def terminal(text: str) -> str:
    """A model's words may hold control sequences that rewrite the screen or set its title."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def receipt(event: Receipted) -> None:
    usage = event.usage
    flags = (" SIMULATED: proves no hardware." if event.simulated else "") + ("" if event.measured else " UNMEASURED.")
    err.print(
        f"receipt {event.hash.hex()}: {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{ton(event.amount_nano)}.{flags}",
        markup=False,
    )


def balance(found: dict[str, Any]) -> None:
    out.print(f"wallet {found['wallet']}: {ton(found['wallet_nano'])}")
    if found["escrow"] is None:
        out.print(found["reason"], markup=False)
        return
    closing = ", CLOSING" if found["closing"] else ""
    deposit, free = ton(found["deposit_nano"]), ton(found["free_nano"])
    out.print(f"escrow {found['escrow']}: deposit {deposit}, not allotted {free}{closing}")
    for row in found["rows"]:
        said = (f"{name} {ton(row[f'{name}_nano'])}" for name in ("allotted", "paid", "owed", "promised", "room"))
        ends = f", may end at {row['closing_at']}" if row["closing_at"] else ""
        out.print(f"node {row['node']}: {', '.join(said)}{ends}")


def closed(found: dict[str, Any]) -> None:
    for node, why in found["refusals"].items():
        out.print(f"node {node} gave no release: {why}", markup=False)
    for node, at in found["waiting"].items():
        out.print(f"node {node}: its row ends at {at} (unix seconds); then run `cocoon client finish`")
    state = "ended" if found["ended"] else "is closing"
    out.print(f"escrow {found['escrow']} {state}; {ton(found['refunded_nano'])} came back")


def receipts(found: dict[str, Any], *, verified: bool) -> None:
    for one in found["receipts"]:
        flags = (" SIMULATED" if one["simulated"] else "") + ("" if one["answered"] else " (answer lost)")
        holds = ("  holds" if one["holds"] else "  DOES NOT HOLD") if verified else ""
        out.print(
            f"{one['hash']}  {one['model']}{flags}  {one['prompt_tokens']} + {one['completion_tokens']} tokens  "
            f"{ton(one['amount_nano'])}, in all {ton(one['cumulative_nano'])}  {one['stop']}{holds}",
            markup=False,
        )
    for one in found["receipts"] if verified else []:
        for check in one["checks"]:
            if not check["holds"]:
                out.print(f"{one['hash']}: NOT {check['name']}: {check['said']}", style="bold red", markup=False)
    for chain in found.get("chains", []):
        word = "unbroken" if chain["holds"] else "BROKEN"
        out.print(f"key {chain['key'][:16]}: chain {word}: {chain['said']}", markup=False)


def trust(found: dict[str, Any]) -> None:
    """The chain of trust, from the root down: what this client verified itself, and what the chain did."""
    root = "the SIMULATED test root: proves no hardware" if found["simulated"] else "Intel's pinned root"
    block = "looked up" if found["block_checked"] else "not looked up (the policy does not ask for it)"
    for line in (
        f"1. root        {root}",
        f"2. platform    {found['platform']}, TCB {found['tcb_status']} {' '.join(found['advisories'])}",
        f"3. image       {found['image']}, measurement {found['measurement']} (on this client's allow-list)",
        *(f"   GPU         {words}" for words in found["gpus"]),
        f"4. freshness   bound to masterchain block {found['block_seqno']}, {block}",
        f"5. key         {found['signing_key']}, the same on chain (two endpoints agree)",
        *_chain(found),
        f"6. node        {found['node']}, epoch {found['epoch']}, attested until {found['attested_until']}",
        f"7. sealing key signed by that key, until {found['sealing_key_until']}",
        f"trusted: tier {found['tier']}" + (", SIMULATED" if found["simulated"] else ""),
    ):
        out.print(line, markup=False)


def _chain(found: dict[str, Any]) -> list[str]:
    if "verifier" not in found:
        return []
    root = "the SIMULATED test root" if found["chain_simulated"] else "Intel's root"
    soonest = min(found["collateral_ends"].values(), default=0)
    return [
        f"   chain       verifier {found['verifier']} checked such a quote itself, from {root};",
        "               image and platform are in good standing by the collateral that it holds today",
        f"               (the first of it ends at {soonest}, unix seconds)",
    ]


def prices(found: list[dict[str, Any]]) -> None:
    words = {None: "not on chain", "the same": "the same on chain", "cheaper": "cheaper than on chain"}
    for one in found:
        parts = ", ".join(f"{ton(one[name])} {name}" for name in ("prompt", "cached", "completion", "reasoning"))
        least = f"at least {ton(one['minimum_nano'])} a request; {words[one['on_chain']]}"
        out.print(f"  {one['name']}: {parts} per 2^20 tokens, {least}", markup=False)


def last_receipt(one: dict[str, Any] | None) -> None:
    if one is None:
        out.print("8. receipt     none of this key in this folder")
        return
    word = "holds" if one["holds"] else "DOES NOT HOLD"
    out.print(f"8. receipt     {one['hash']}: {word}, {ton(one['amount_nano'])}", markup=False)


def job(found: dict[str, Any]) -> None:
    flags = " SIMULATED: proves no hardware." if found["simulated"] else ""
    out.print(
        f"job {found['job']}: {found['phase']}, {found['lines']} lines for {found['model']}.{flags}", markup=False
    )
    amount = "" if found["amount_nano"] is None else f", costs {ton(found['amount_nano'])}"
    by = "" if found["accepted_by"] is None else f", accepted by node {found['accepted_by']}"
    out.print(f"  at most {ton(found['maximum_nano'])}{amount}{by}", markup=False)
    times = {"deadline": "a node must accept", "refundable_at": "it may be refunded", "payable_at": "it is paid anyway"}
    said = [
        f"{words} {'by' if name == 'deadline' else 'from'} {found[name]}"
        for name, words in times.items()
        if found[name]
    ]
    out.print(f"  {'; '.join(said)} (unix seconds)", markup=False)
    if found["refund_due"]:
        out.print(f"  REFUND DUE: run `cocoon client job refund {found['job']}`, or let `serve` run", markup=False)


def fetched(found: dict[str, Any]) -> None:
    failed = f", {found['failed']} of them errors" if found["failed"] else ""
    out.print(f"{found['lines']} answers{failed} in {found['file']}", markup=False)
    amount = "not checked against the chain, where the job has ended"
    if found["amount_nano"] is not None:
        amount = f"{ton(found['amount_nano'])}, as usage and terms give" + (", paid now" if found["paid"] else "")
    err.print(f"{found['prompt_tokens']} + {found['completion_tokens']} tokens: {amount}", markup=False)
