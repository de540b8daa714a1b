"""Records in, the records that stay out: rules, languages, near duplicates; and synthetic negatives for pairs."""
