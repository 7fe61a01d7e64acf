"""AMD SEV-SNP evidence: reports of the secure processor, judged down from AMD's root keys."""
