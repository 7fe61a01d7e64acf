"""Carrying out a plan: observe, send, wait, observe again, until nothing is left to send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chain.api import Chain
from chain.mnemonic import MnemonicError
from chain.wallet import MAX_MESSAGES, Wallet
from scripts.deploy.plan import Desired, Observed, PlanError, Step, plan
from scripts.deploy.profile import Profile

MAIN_NETWORK = -239


def desired_of(profile: Profile) -> Desired:
    """The deployment that a profile describes, from public keys alone where it names them. Raises PlanError."""
    try:
        key = profile.deployer_public_key or deployer_of(profile).public_key
        governor = profile.governor
        if governor is None:
            if profile.governor_mnemonic_file is None:
                raise PlanError(f"{profile.path}: name deploy.governor (an address) or deploy.governor_mnemonic_file")
            governor = Wallet.from_mnemonic_file(profile.governor_mnemonic_file).account
    except MnemonicError as error:
        raise PlanError(
            f"{error}; addresses follow from the deployer's and the governor's keys: name deploy.deployer_public_key "
            f"and deploy.governor in {profile.path}, or give the files"
        ) from error
    return Desired(
        profile.network.global_id,
        key,
        profile.salt,
        governor,
        profile.parameters,
        profile.verifier,
        profile.treasury,
        profile.rebuilders,
    )


def deployer_of(profile: Profile) -> Wallet:
    """Raises MnemonicError, PlanError where the words are not those of the profile's public key."""
    deployer = Wallet.from_mnemonic_file(profile.deployer_mnemonic_file)
    if profile.deployer_public_key not in (None, deployer.public_key):
        raise PlanError(
            f"{profile.deployer_mnemonic_file} is not the wallet of deploy.deployer_public_key in {profile.path}"
        )
    return deployer


async def observe(chain: Chain, desired: Desired) -> Observed:
    accounts = (desired.registry, desired.attestation, desired.court)
    registry, attestation, court = [await chain.account(account) for account in accounts]
    return Observed(registry, attestation, court)


async def apply(
    chain: Chain, desired: Desired, deployer: Wallet, *, on_step: Callable[[Step], None], wait_seconds: float = 60.0
) -> None:
    """Safe to repeat after any interruption: what stands is not sent again. Raises ChainError, PlanError."""
    if desired.global_id == MAIN_NETWORK and desired.rebuilders.needed == 0:
        raise PlanError("the main network takes no registry without rebuilders: name them in [deploy.rebuilders]")
    steps = plan(desired, await observe(chain, desired), deployer.sign, (await chain.head()).now)
    for start in range(0, len(steps), MAX_MESSAGES):
        part = steps[start : start + MAX_MESSAGES]
        for step in part:
            on_step(step)
        sent = await deployer.send(chain, [step.message for step in part])
        await sent.landed(chain)
    for _ in range(int(wait_seconds / 0.5)):
        if not plan(desired, await observe(chain, desired), deployer.sign, (await chain.head()).now):
            return
        await asyncio.sleep(0.5)
    raise PlanError(
        f"the messages landed, but the contracts do not show the wanted state after {wait_seconds:.0f} s; "
        "look at the transactions of the registry and of the attestation contract for exit codes"
    )
