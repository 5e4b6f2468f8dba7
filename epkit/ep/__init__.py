"""Equilibrium Propagation: networks, read-outs, the learning rule, training, and the engines that run it."""
