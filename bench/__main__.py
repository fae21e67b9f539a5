"""`python -m bench`: the ledger and its peers side by side, as ratios; `bench.throughput` says how.

It starts a real Kafka of its own. Machines are noisy: quote ratios of one run, not single numbers
of different days.
"""

from bench.throughput import main

if __name__ == "__main__":
    main()
