"""The simulator: the product's own coordinator and workers on a virtual clock, from one seed.

Everything outside the product is played here: sockets, disks, children, time and misfortune. It
never alters what the product decides, and never waits in real time.
"""
