"""Feeds the places that strangers reach with inputs made to hurt, and keeps what hurts.

    python -m tools.fuzz --minutes 10 host-calls
    python -m tools.fuzz --replay fuzz-findings/host-calls-1a2b3c4d.bin host-calls

`campaign` runs a target in a process of its own, which an input may kill. A target makes inputs,
as bytes, from a seeded generator, and runs them against the real thing: the same seed gives the
same inputs, and a kept input can be run again.
"""
