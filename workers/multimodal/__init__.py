"""From prompts and media references to the tensors a model's forward takes."""
