"""How the pipelines run on more than one machine.

`xlmr annotate --ray-address ADDRESS` runs a job on a Ray cluster that exists; this package will hold what starts and
describes one.
"""
