"""The training loop and its steps: from a batch of the data to an optimizer step, and what is measured meanwhile."""
