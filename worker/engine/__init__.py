"""Engines that run the model: one interface, in-process llama.cpp, a child server, or an OpenAI-compatible URL."""
