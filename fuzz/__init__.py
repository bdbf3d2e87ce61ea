"""Fuzz targets: whatever goes in, only documented errors come out.

    python -m fuzz.decoder --seconds 20       bytes into the decoder, the explainer and sessions in every state
    python -m fuzz.operations --seconds 20    lists of calls, deliveries, cuts and noise on two joined sessions
    python -m fuzz.seeds DIR                  the seed corpus as files, for other fuzzers

Each runs with a mutation loop of its own, and under atheris when that is installed (`--atheris`, further arguments go
to libFuzzer). A finding is written to a file and can be run again: `python -m fuzz.decoder FILE`.
"""
