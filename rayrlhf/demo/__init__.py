"""The demo: its sample set, made from phrase tables, and the job that trains on it from nothing."""
