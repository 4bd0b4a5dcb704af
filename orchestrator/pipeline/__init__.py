"""What a run consists of: stages, the workers that each one has, what it was made from, and how it runs."""
