"""The machines and the workers on them: placed, started, watched, kept in step, and given back."""
