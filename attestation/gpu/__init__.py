"""NVIDIA's evidence for GPUs in confidential-computing mode, verified here and nowhere else: no service is asked.

Sources: DMTF DSP0274 1.1 (SPDM) for the report; TCG DICE Attestation Architecture for firmware identities; TCG RIM IM
and ISO/IEC 19770-2 for reference manifests; W3C XML Signature with Canonical XML 1.1; NVIDIA's own verifiers (nvtrust,
attestation-sdk) for what NVIDIA put into opaque data and how manifests are named.
"""
