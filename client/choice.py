"""Which node a request goes to: one that something is allotted to, that is trusted now and serves the model."""

from __future__ import annotations

from dataclasses import dataclass

from client.body import Body
from client.directory import Directory
from client.errors import ClientError, NoEscrow, NoNode, TooExpensive, TooLittleAllotted, UnknownModel, Untrusted
from client.records import Escrow
from client.session import Target
from client.settings import RowBalance
from client.store import Store
from client.trust import TrustedNode
from wrappers.escrow import EscrowState
from wrappers.receipts import Terms
from wrappers.rows import Row


def row_balance(store: Store, node: bytes, row: Row) -> RowBalance:
    """The row as the chain shows it, with what this client owes and has promised under it."""
    owed = promised = 0
    for of, account in store.accounts(row.allotment):
        paid = row.keys[of.key].paid_nano if of.key in row.keys else 0
        owed += max(0, account.acked_nano - paid)
        promised += account.cap_nano - account.acked_nano
    return RowBalance(node, row.allotment, row.allotted_nano, row.paid_nano, owed, promised, row.closing_at)


@dataclass(frozen=True, slots=True)
class Choice:
    directory: Directory
    store: Store
    max_request_nano: int | None
    """None: a request may cost whatever its terms say."""

    async def target(self, body: Body, wanted: bytes | None, known: Escrow, state: EscrowState) -> Target:
        """The node with the most room, or the `wanted` one.

        Raises NoEscrow, TooLittleAllotted, TooExpensive, UnknownModel; NoNode, Untrusted where no row's node is of use.
        """
        if state.closing:
            raise NoEscrow("the escrow is closing", "wait for its end, then `cocoon client open AMOUNT`")
        rows = {node: row for node, row in state.rows.items() if not row.closing_at and wanted in (None, node)}
        if not rows:
            raise TooLittleAllotted(
                "nothing is allotted to " + ("any node" if wanted is None else f"node {wanted.hex()}"),
                "run `cocoon client allot NODE AMOUNT`",
            )
        troubles: list[ClientError] = []
        models: set[str] = set()
        for node, row in sorted(rows.items(), key=lambda one: -row_balance(self.store, *one).room_nano):
            try:
                trusted = await self.directory.node(node)
            except (Untrusted, NoNode) as error:
                troubles.append(error)
                continue
            if row.terms.release_key != trusted.release_key:
                # Its agent serves no such row: whoever has the earlier key could empty it.
                cause = f"node {node.hex()} has another release key than the one that your allotment names"
                cure = "end the row (`cocoon client reclaim NODE`, at its time `finish`) and allot anew"
                troubles.append(NoNode(cause, cure))
                continue
            models |= {one.name for one in trusted.models}
            model = trusted.model(body.model) if body.model else next(iter(trusted.models), None)
            if model is not None:
                self._check_price(body, model.name, model.context_tokens, model.terms)
                return Target(trusted, model, known.account, row)
        if len(troubles) == 1 and not models:
            raise troubles[0]
        if troubles and not models:
            raise NoNode("; ".join(error.cause for error in troubles), "allot to another node, or wait for these")
        raise UnknownModel(
            f"no node that something is allotted to serves model {ascii(body.model)[:80]}",
            f"use one of: {', '.join(sorted(models)) or 'none is served now'}",
        )

    def _check_price(self, body: Body, name: str, context_tokens: int, terms: Terms) -> None:
        limit = self.max_request_nano
        maximum_nano = body.priced(name, context_tokens, terms)[1]
        if limit is not None and maximum_nano > limit:
            raise TooExpensive(
                f"the request may cost up to {maximum_nano} nanoTON, over the limit of {limit} per request",
                "ask for fewer tokens, or raise max_request_nano",
            )

    async def candidate(self, body: Body, state: EscrowState) -> bytes | None:
        """The node to allot to: one that has a row already, else the first trusted one that has the model."""
        trusted = [node for node in await self.directory.all() if isinstance(node, TrustedNode)]
        serving = [node.account for node in trusted if body.model is None or node.model(body.model)]
        return next((one for one in serving if one in state.rows), next(iter(serving), None))
