"""One Chain out of several endpoints: a fact is what two of them say (G17, DESIGN "Trust in chain answers").

Transactions need no vote: they prove themselves by the hash chain from an agreed head. Broadcasts need none either.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from pytoniq_core import Cell

from chain.api import AccountState, Chain, ChainError, Disagreement, Head, Refused, Transaction, Unreachable
from chain.history import Cursor, check_links

NEEDED = 2
T = TypeVar("T")


class Quorum:
    """Chain over at least two endpoints.

    `account()`: the state that two endpoints both gave within `settle_seconds`; one that lags is asked again until it
    catches up. A single answer is never enough. `head()`: the older of the two newest, so that no endpoint alone can
    move the clock forward.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        *,
        settle_seconds: float = 10.0,
        reread_seconds: float = 0.3,
        grace_seconds: float = 1.0,
    ) -> None:
        names = [chain.name for chain in chains]
        if len(set(names)) != len(names):
            raise ValueError(f"the endpoints {names} are not distinct; one endpoint asked twice proves nothing")
        if len(chains) < NEEDED:
            raise ValueError(
                f"a quorum needs {NEEDED} endpoints, got {names}; configure a second one, or read hints through "
                "Unproved"
            )
        self._chains = tuple(chains)
        self._settle_seconds = settle_seconds
        self._reread_seconds = reread_seconds
        self._grace_seconds = grace_seconds
        self._favourite = 0

    @property
    def name(self) -> str:
        return " + ".join(chain.name for chain in self._chains)

    async def head(self) -> Head:
        answers, failures = await self._ask_all(lambda chain: chain.head())
        if len(answers) < NEEDED:
            raise _too_few(answers, failures, "the chain's head")
        newest = sorted(answers.items(), key=lambda item: item[1].block.seqno)
        for (name, head), (other_name, other) in pairwise(newest):
            if head.block.seqno == other.block.seqno and head != other:
                raise Disagreement(
                    f"{name} and {other_name} name different masterchain blocks {head.block.seqno}; one of them "
                    "lies or serves another network: compare both with an explorer and remove the wrong one"
                )
        return newest[-NEEDED][1]

    async def block(self, seqno: int) -> Head:
        answers, failures = await self._ask_all(lambda chain: chain.block(seqno))
        if len(answers) < NEEDED:
            refusals = [error for error in failures.values() if isinstance(error, Refused)]
            if len(refusals) > len(self._chains) - NEEDED:
                raise Refused(f"no masterchain block {seqno}: {refusals[0]}")
            raise _too_few(answers, failures, f"masterchain block {seqno}")
        if len(set(answers.values())) != 1:
            raise Disagreement(
                f"{' and '.join(answers)} name different masterchain blocks {seqno}; one of them lies or serves "
                "another network: compare both with an explorer and remove the wrong one"
            )
        return next(iter(answers.values()))

    async def account(self, account: bytes) -> AccountState:
        deadline = time.monotonic() + self._settle_seconds
        said: dict[str, set[AccountState]] = {chain.name: set() for chain in self._chains}
        while True:
            answers, failures = await self._ask_all(lambda chain: chain.account(account))
            for name, state in answers.items():
                said[name].add(state)
            agreed = _agreed(said.values())
            if len(agreed) == 1:
                return agreed[0]
            final = sum(not isinstance(error, Unreachable) for error in failures.values())
            hopeless = len(self._chains) - final < NEEDED or _contradict(answers)
            if hopeless or time.monotonic() + self._reread_seconds >= deadline:
                raise _no_agreement(account, answers, failures)
            await asyncio.sleep(self._reread_seconds)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        failures: dict[str, ChainError] = {}
        for offset in range(len(self._chains)):
            index = (self._favourite + offset) % len(self._chains)
            chain = self._chains[index]
            try:
                found = await chain.transactions(account, lt=lt, hash=hash, limit=limit)
                check_links(found, Cursor(lt, hash), account=account, endpoint=chain.name)
            except ChainError as error:
                failures[chain.name] = error
                continue
            self._favourite = index
            return found
        raise _all_failed(failures, f"transactions of account {account.hex()} from lt {lt}")

    async def send(self, message: Cell) -> bytes:
        """To every endpoint; the hash if any accepts. A refusal is a hint too: only its expiry makes a message dead."""
        accepted, failures = await self._ask_all(lambda chain: chain.send(message))
        if not accepted:
            raise _all_failed(failures, "the message")
        return bytes(message.hash)

    async def close(self) -> None:
        await asyncio.gather(*(chain.close() for chain in self._chains))

    async def _ask_all(self, ask: Callable[[Chain], Awaitable[T]]) -> tuple[dict[str, T], dict[str, ChainError]]:
        async def one(chain: Chain) -> T | ChainError:
            try:
                return await ask(chain)
            except ChainError as error:
                return error

        asked = {asyncio.ensure_future(one(chain)): chain.name for chain in self._chains}
        try:
            await self._most(asked)
            results = {name: task.result() for task, name in asked.items() if task.done()}
        finally:
            late = [task for task in asked if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        answers: dict[str, T] = {}
        failures: dict[str, ChainError] = {}
        for name in asked.values():
            result = results.get(name, Unreachable(f"{name} answers much later than the others; look after it"))
            if isinstance(result, ChainError):
                failures[name] = result
            else:
                answers[name] = result
        return answers, failures

    async def _most(self, asked: Collection[asyncio.Future[T | ChainError]]) -> None:
        """Until all answered, or enough of them a while ago: a spare endpoint that hangs must not slow all down."""
        pending, patience = set(asked), None
        while pending:
            done, pending = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return
            ended = [task for task in asked if task.done()]
            if sum(task.exception() is None and not isinstance(task.result(), ChainError) for task in ended) >= NEEDED:
                patience = self._grace_seconds


class Unproved:
    """A Chain whose answers are one endpoint's word: hints for people and tests, never a reason to move money."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    @property
    def name(self) -> str:
        return f"{self._chain.name} (unproved)"

    async def head(self) -> Head:
        return await self._chain.head()

    async def block(self, seqno: int) -> Head:
        return await self._chain.block(seqno)

    async def account(self, account: bytes) -> AccountState:
        return await self._chain.account(account)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        return await self._chain.transactions(account, lt=lt, hash=hash, limit=limit)

    async def send(self, message: Cell) -> bytes:
        return await self._chain.send(message)

    async def close(self) -> None:
        await self._chain.close()


def _agreed(said: Iterable[set[AccountState]]) -> list[AccountState]:
    votes = Counter(state for states in said for state in states)
    return [state for state, count in votes.items() if count >= NEEDED]


def _contradict(answers: Mapping[str, AccountState]) -> bool:
    """Different states after the same transaction: no lag explains that, so waiting would not help."""
    states = set(answers.values())
    return len(states) > 1 and len({(state.last_lt, state.last_hash) for state in states}) == 1


def _no_agreement(
    account: bytes, answers: Mapping[str, AccountState], failures: Mapping[str, ChainError]
) -> ChainError:
    if len(answers) < NEEDED:
        return _too_few(answers, failures, f"account {account.hex()}")
    said = "; ".join(f"{name} says {_say(state)}" for name, state in answers.items())
    return Disagreement(
        f"the endpoints differ about account {account.hex()}: {said}. One lies or lags for long: compare with "
        "an explorer and replace the wrong one; nothing is decided until two agree"
    )


def _too_few(answers: Mapping[str, object], failures: Mapping[str, ChainError], what: str) -> Unreachable:
    reasons = "; ".join(str(error) for error in failures.values())
    return Unreachable(
        f"only {len(answers)} of the {NEEDED} endpoints that must agree gave {what}: {reasons}. "
        "Nothing is decided on one endpoint's word: bring the other back or configure a third"
    )


def _all_failed(failures: Mapping[str, ChainError], what: str) -> ChainError:
    reasons = "; ".join(str(error) for error in failures.values())
    kind: type[ChainError] = ChainError
    if all(isinstance(error, Unreachable) for error in failures.values()):
        kind = Unreachable
    elif any(isinstance(error, Refused) for error in failures.values()):
        kind = Refused
    return kind(f"no endpoint took or gave {what}: {reasons}")


def _say(state: AccountState) -> str:
    code = "no code" if state.code is None else f"code {state.code.hash.hex()[:16]}"
    data = "no data" if state.data is None else f"data {state.data.hash.hex()[:16]}"
    last = f"last lt {state.last_lt} {state.last_hash.hex()[:16]}"
    return f"{state.status}, {state.balance_nano} nanoTON, {code}, {data}, {last}"
