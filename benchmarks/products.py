"""Cost and error of products with the steering dictionary: its whole table against factors of it.

    python benchmarks/products.py [--panels 6x6 8x8 12x12 16x16 24x24] [--dense-gb 2] [--write]

For panels of N = 36 to 576 elements, in the region of the presets (0.5 m to 3 m for 6x6, to 10 m
for others) or, for the largest, from as far as its focus: one power map and one mixture of 16
scenes in single precision, with the whole table where that fits `--dense-gb`, and compressed.

    memory    of the table, or of its factors
    time      CPU time of a power map and of a mixture, the least of five
    map       |error| / |map| of 16 random R of rank 16: the largest. Against the whole table, or
              where it is too large, against 512 of its points
    mixture   |error| / |mixture| of 16 random powers, uniform to the 8th power: the largest

`--step` adds a training step (forward and backward, 16 scenes) of an unrolled network with one
stage on the 12x12 panel either way, and the growth of the process's memory.
"""
