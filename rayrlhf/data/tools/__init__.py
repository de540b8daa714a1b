"""What `rayrlhf data …` does: each tool reads, reports and writes with the parts that the jobs use."""
