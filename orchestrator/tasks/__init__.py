"""Tasks that ship with the project: real data, written out in the formats users have."""
