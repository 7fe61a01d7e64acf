"""A job's result at the client: fetched from a relayer, opened with the job's own secret, checked line by line."""

from __future__ import annotations

from dataclasses import dataclass, field

from client.errors import BadRequest, NodeFault, RelayerUnreachable
from client.job_link import JobLink
from client.job_records import JobRecord
from client.store import Store
from protocol.errors import Malformed, NotAuthentic, ReceiptFault
from protocol.job_lines import Answer, read_answers
from protocol.jobs import Result, open_result


@dataclass(frozen=True, slots=True)
class Fetched:
    job: bytes
    answers: tuple[Answer, ...] = field(repr=False)
    result: Result
    amount_nano: int | None
    """Checked against the chain; None where the job had ended before the chain was looked at, so that only the seal
    speaks for the answers."""
    paid: bool
    """Whether this client's word has paid the node now."""


@dataclass(frozen=True, slots=True)
class Results:
    """`job_id`: as the enclave signed for it. Raises BadRequest, NodeFault, RelayerUnreachable."""

    link: JobLink
    store: Store
    record: JobRecord
    job_id: bytes

    async def opened(self, node: bytes, key: bytes) -> tuple[Result, tuple[Answer, ...]]:
        """What `node` left at the relayer. `key`: its enclave's, empty where the chain does not show it any more."""
        record, job = self.record, self.record.job.hex()
        sealed = await self.link.result(record.job, node)
        try:
            result = open_result(record.secret, self.job_id, record.parsed, record.opened_terms, record.seen, sealed)
            return result, read_answers(result.answers, record.asked)
        except NotAuthentic as error:
            raise RelayerUnreachable(f"job {job}: {error.cause}", "fetch it again, or from another relayer") from error
        except (ReceiptFault, Malformed) as error:
            self.store.put_fault(node, key, error.cause)
            raise NodeFault(
                f"job {job}: {error.cause}", "the node is not used again; its word is not paid before the window"
            ) from error

    async def left(self) -> tuple[Result, tuple[Answer, ...]]:
        """Of a job that has ended: whatever opens with its secret, which no one but the enclaves was told."""
        record = self.record
        nodes = [record.node] if record.seen is not None else sorted(await self.link.results(record.job))
        for node in nodes:
            try:
                return await self.opened(node, b"")
            except RelayerUnreachable:
                if node == nodes[-1]:
                    raise
        raise BadRequest(
            f"job {record.job.hex()} ended without a result that this relayer has",
            "ask another relayer, or submit anew",
        )
