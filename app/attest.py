"""`cocoon attest`: evidence measured, explained and judged without a network; collateral and manifests fetched."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app import attest_collateral, attest_sync
from app import attest_measure as measuring
from app.attest_explain import explain as explain_file
from app.attest_onchain import judge_paths
from attestation.explain.words import printable
from attestation.fetch import CollateralUnavailable
from attestation.gpu.collateral import MANIFEST_SERVICE
from attestation.gpu.envelope import NONCE_BYTES, GpuEvidence
from attestation.gpu.fetch import fetch_manifest, keep
from attestation.gpu.source import GpuUnavailable, Nvml
from attestation.gpu.verify import manifests_of
from attestation.measure import eventlog
from attestation.measure.mrtd import Order
from attestation.policy import MAINNET_GLOBAL_ID, bundled, load
from attestation.strict import Malformed
from chain.mnemonic import MnemonicError
from wrappers.cells import account_of

app = typer.Typer(
    no_args_is_help=True, help="Attestation evidence and collateral: look at it, judge it, bring it to the chain."
)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Reasons quote servers and files of strangers."""
    err.print(printable(text), markup=False)


@app.command()
def onchain(
    paths: Annotated[
        list[Path], typer.Argument(metavar="QUOTE [COLLATERAL] ...", help="files of quotes and collateral, or folders")
    ],
    at: Annotated[
        int | None, typer.Option(help="judge at this time (unix seconds) instead of the collateral's own")
    ] = None,
) -> None:
    """Judge quotes by the attestation contract on the emulated chain: a JSON line each; exit code 1 if any is refused.

    A quote is binary or hex, or evidence as JSON. Collateral stands beside it as NAME_collateral.json, follows it, or
    lies in the same folder.
    """
    found = refused = 0
    for each in judge_paths(paths, at, note):
        print(each.to_json(), flush=True)
        found += 1
        refused += not each.accepted
    if not found:
        note(f"no quote in {', '.join(map(str, paths))}: name a TDX quote (binary or hex) or evidence as JSON")
    raise typer.Exit(2 if not found else 1 if refused else 0)


@app.command()
def collateral(
    registry: Annotated[str, typer.Option(help="the network's registry: 64 hex digits, or an address")],
    network: Annotated[str, typer.Option(help="devnet, testnet, mainnet, or a profile's path")] = "testnet",
    wallet: Annotated[
        Path | None, typer.Option(help="24 words of the wallet that pays; without it nothing is sent")
    ] = None,
    url: Annotated[str | None, typer.Option(help="base of a PCCS or of Intel's service (PCS API v4)")] = None,
    fmspc: Annotated[list[str] | None, typer.Option(help="platform type to bring beside those on chain")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="look again every so many seconds")] = None,
) -> None:
    """Show what the chain holds of Intel's collateral, and bring what is due. Anyone may; a JSON line each time."""
    try:
        platforms = frozenset(_fmspc(each) for each in fmspc or ())
        done = asyncio.run(
            attest_collateral.keep(
                network,
                _account(registry),
                wallet_file=wallet,
                url=url,
                platforms=platforms,
                every_seconds=every,
                tell=lambda line: print(line, flush=True),
                note=note,
            )
        )
    except KeyboardInterrupt:
        return
    except (ValueError, MnemonicError) as error:
        note(f"error: {error}")
        raise typer.Exit(2) from error
    raise typer.Exit(0 if done else 1)


@app.command()
def sync(
    registry: Annotated[str, typer.Option(help="the network's registry: 64 hex digits, or an address")],
    node: Annotated[
        str | None, typer.Argument(help="64 hex digits, or an address; every node of the network when not given")
    ] = None,
    network: Annotated[str, typer.Option(help="devnet, testnet, mainnet, or a profile's path")] = "testnet",
    wallet: Annotated[
        Path | None,
        typer.Option(
            help="24 words of the wallet that pays (0.25 TON a node that is told); without it nothing is sent"
        ),
    ] = None,
    every: Annotated[float | None, typer.Option(min=1, help="look again every so many seconds")] = None,
) -> None:
    """Show where nodes stand with the verifier today, and tell a node where it stands badly. Anyone may."""
    try:
        done = asyncio.run(
            attest_sync.tell_nodes(
                network,
                _account(registry),
                None if node is None else _account(node),
                wallet_file=wallet,
                tell=lambda line: print(line, flush=True),
                note=note,
                every_seconds=every,
            )
        )
    except KeyboardInterrupt:
        return
    except (ValueError, MnemonicError) as error:
        note(f"error: {error}")
        raise typer.Exit(2) from error
    raise typer.Exit(0 if done else 1)


def _account(text: str) -> bytes:
    return bytes.fromhex(text) if len(text) == 64 else account_of(text)


def _fmspc(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != 6:
        raise ValueError(f"--fmspc {text}: an FMSPC has 12 hex digits")
    return found


@app.command()
def measure(
    firmware: Annotated[Path, typer.Option(help="OVMF.fd with its configuration volume")],
    kernel: Annotated[Path | None, typer.Option(help="bzImage that QEMU gets with -kernel")] = None,
    initrd: Annotated[Path | None, typer.Option(help="initial RAM disk")] = None,
    cmdline: Annotated[str | None, typer.Option(help="kernel command line, as given to QEMU")] = None,
    cmdline_file: Annotated[Path | None, typer.Option(help="the same, from a file")] = None,
    memory: Annotated[str, typer.Option(help="the guest's memory: 4G, 2048M")] = "4G",
    acpi_tables: Annotated[Path | None, typer.Option(help="QEMU's etc/acpi/tables")] = None,
    acpi_rsdp: Annotated[Path | None, typer.Option(help="etc/acpi/rsdp, derived without")] = None,
    acpi_loader: Annotated[Path | None, typer.Option(help="etc/table-loader, derived without")] = None,
    order: Annotated[Order, typer.Option(help="how the hypervisor adds pages")] = Order.PAGE_BY_PAGE,
    kernel_as_is: Annotated[bool, typer.Option(help="the firmware gets the kernel without QEMU's parameters")] = False,
    variable: Annotated[list[str] | None, typer.Option(help="NAME=FILE of a secure boot variable")] = None,
    events: Annotated[Path | None, typer.Option(help="JSON with the events of a register, RTMR3's for example")] = None,
    log: Annotated[Path | None, typer.Option("--eventlog", help="CCEL of a guest, to compare with")] = None,
    name: Annotated[str, typer.Option(help="the image's name in policies")] = "worker",
    tier: Annotated[int, typer.Option(min=1, max=2, help="1: CPU; 2: it verifies its GPU")] = 1,
    snp: Annotated[bool, typer.Option(help="the SEV-SNP launch digest instead")] = False,
    vcpus: Annotated[int, typer.Option(help="SEV-SNP: number of vCPUs")] = 1,
    vcpu_type: Annotated[str, typer.Option(help="SEV-SNP: QEMU's CPU model")] = "EPYC-Milan",
) -> None:
    """Compute what an image measures to, from its files: registers, measurement, every component, policy entries."""
    try:
        line = "" if kernel is None else measuring.command_line(cmdline, cmdline_file)
        if snp:
            digest = measuring.snp_digest(firmware, vcpus, vcpu_type, kernel, initrd, line)
            print(json.dumps(measuring.snp_document(digest, vcpus, vcpu_type), indent=2))
            return
        if kernel is None:
            raise Malformed("kernel: --kernel is needed; RTMR1 is its measurement")
        image = measuring.tdx_image(
            ovmf=firmware,
            kernel_file=kernel,
            initrd=initrd,
            line=line,
            memory=memory,
            acpi_tables=acpi_tables,
            acpi_rsdp=acpi_rsdp,
            acpi_loader=acpi_loader,
            order=order,
            kernel_as_is=kernel_as_is,
            secure_boot=variable or [],
            event_lists=events,
        )
        ccel = None if log is None else measuring.read(log, "event log", eventlog.LIMIT_BYTES)
        document = measuring.tdx_document(image, name, tier, ccel)
    except (Malformed, UnicodeDecodeError) as error:
        note(f"error: {error}")
        raise typer.Exit(2) from error
    print(json.dumps(document, indent=2))
    raise typer.Exit(0 if document.get("eventlog", {"agrees": True})["agrees"] else 1)


@app.command()
def manifests(
    folder: Annotated[Path, typer.Argument(help="where the enclave's [gpu] table looks for them")],
    evidence: Annotated[
        Path | None, typer.Option(help="raw GPU evidence in a file; else this machine's GPUs are asked")
    ] = None,
    url: Annotated[str, typer.Option(help="a mirror of NVIDIA's manifest service")] = MANIFEST_SERVICE,
) -> None:
    """Fetch NVIDIA's manifests for this machine's GPUs: each is verified before it is kept."""
    try:
        if evidence is not None:
            gpus = GpuEvidence.from_bytes(evidence.read_bytes())
        else:
            gpus = Nvml().evidence(secrets.token_bytes(NONCE_BYTES))
        for name in manifests_of(gpus):
            raw = asyncio.run(fetch_manifest(name, int(time.time()), base=url))
            print(keep(folder, name, raw))
    except (OSError, Malformed, GpuUnavailable, CollateralUnavailable) as error:
        note(str(error))
        raise typer.Exit(1) from error


@app.command()
def explain(
    file: Annotated[
        Path, typer.Argument(help="quote, report, GPU evidence (binary or hex), evidence or collateral (JSON)")
    ],
    collateral: Annotated[Path | None, typer.Option(help="Intel's or AMD's, as JSON")] = None,
    policy: Annotated[str | None, typer.Option(help="policy file in TOML, or the name of one that ships")] = None,
    at: Annotated[int | None, typer.Option(help="judge at this time (unix seconds) instead of now")] = None,
    global_id: Annotated[int, typer.Option(help="GLOBALID of the network; mainnet's refuses simulated evidence")] = (
        MAINNET_GLOBAL_ID
    ),
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Say in words what a file of evidence holds and who signed it; with collateral and policy, judge it.

    Exit code 1: something was found to be wrong. 0 without a verdict means that nothing was.
    """
    try:
        chosen = None if policy is None else load(Path(policy)) if Path(policy).is_file() else bundled(policy)
        found = explain_file(file, collateral, chosen, at, int(time.time()), global_id)
    except (OSError, Malformed) as error:
        note(f"error: {printable(f'{file}: {error}')}")
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps(found.to_document(), indent=2))
    else:
        for line in found.lines():
            print(line)
    raise typer.Exit(1 if found.judged is not None and found.judged.accepted is False else 0)
