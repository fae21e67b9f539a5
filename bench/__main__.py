"""`python -m bench`: the figures of this project, side by side, as ratios.

throughput and latency start a real Kafka of their own. Machines are noisy: quote ratios of one
run, not single numbers of different days.
"""

import argparse
import asyncio

from bench.latency import latency
from bench.throughput import PEERS_PYTHON, throughput


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", default=["throughput", "latency"])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second, for latency")
    parser.add_argument("--seconds", type=float, default=30)
    asked = parser.parse_args()
    if "throughput" in asked.what:
        with_peers = PEERS_PYTHON.exists()
        if not with_peers:
            print("quix-streams is not installed: `make bench` does it")
        runs = asyncio.run(throughput(asked.events, asked.tasks, with_peers=with_peers))
        for run in runs:
            print(
                f"{run.name:28} {run.events_per_s:>10,} events/s "
                f"{run.cpu_s_per_million:>6} CPU s/million {run.rss_mb_max:>5} MB"
            )
        if with_peers:
            quix, ours = runs
            print(f"ratio, ours to quix-streams: {ours.events_per_s / quix.events_per_s:.1f}")
    if "latency" in asked.what:
        print(asyncio.run(latency(asked.rate, asked.seconds)))


if __name__ == "__main__":
    main()
