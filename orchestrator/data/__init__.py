"""People's files: readers declared by name, the store that they become, and what an algorithm learns from in it."""
