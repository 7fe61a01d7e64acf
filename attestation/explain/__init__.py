"""Evidence in words: every field with its meaning, and whose key signed what. Reading is not verifying."""
