"""All of vLLM: settings, the engine in this process, adapters, and the receiving side of the weights.

Importing this package does not import vLLM; starting an engine and checking adapters do.
"""
