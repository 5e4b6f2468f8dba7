"""The read-out budget: what a board's read-outs let a network learn, and how many reads that takes."""
