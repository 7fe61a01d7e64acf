"""A TEE made of software. Everything it signs ends in a root whose private key is public: it proves nothing.

It exists so that the whole system, verification included, runs where there is no hardware. Formats, chains and code
paths are the real ones; only the root differs.
"""
