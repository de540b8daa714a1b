"""Sources → records: reads rows, recognizes their format, pairs answers, and accounts for every row."""
