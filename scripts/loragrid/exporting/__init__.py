"""A finished run as others use it: adapter, merged model, GGUF, Ollama, card, and the check that they are the run."""
