"""One Ray actor per role, each a thin shell over a plain class that runs without Ray."""
