"""Ossification regions of the hand: finding, naming and measuring the growth plates that a reader looks at."""
