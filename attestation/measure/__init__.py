"""What an image measures to, from its parts: computed where it is built, compared with what a quote says."""
