"""One run: its folder and checkpoints, what a person sees of it, and what ends it or starts it again."""
