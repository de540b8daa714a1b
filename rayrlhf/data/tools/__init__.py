"""The tools behind `rayrlhf data …`: sources → records → a report and files, through the same code as the jobs."""
