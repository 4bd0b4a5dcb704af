"""How fast a step can be at best, and what our plan of it reaches: arithmetic on shapes, lengths and data sheets.

hardware   what a GPU and its links do        shape    what a token of a model costs      lengths   a step's tokens
work       FLOPs, bytes, messages; seconds    layout   what our packing makes of them     sampling, learning, moving
step       all phases, in order               table    for people
"""
