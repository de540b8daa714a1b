"""Data, from files to token ids.

    files (containers) → formats (schemas) → ingest (records, every row accounted for) → cleaning → templates → tokens

`tools` does the same for people, on the command line.
"""
