"""Run a Ray cluster of two nodes with one CPU each on this machine until standard input closes.

Prints the address of the cluster, and for each line of input the state of the cluster as one line
of JSON.
"""

import json
import sys
from collections import defaultdict

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

NODE = {
    "num_cpus": 1,
    "node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "include_log_monitor": False,
}


def cluster_state() -> dict[str, object]:
    """Return the numbers of nodes, free CPUs and nodes per actor class, and the group states."""
    actors = defaultdict(set)
    for actor in ray._private.state.actors().values():
        actors[actor["ActorClassName"]].add(actor["Address"]["NodeID"])
    return {
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "cpus": ray.available_resources().get("CPU", 0),
        "groups": [group["state"] for group in placement_group_table().values()],
        "actors": {name: len(nodes) for name, nodes in actors.items()},
    }


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        print(cluster.address, flush=True)
        for _ in sys.stdin:
            print(json.dumps(cluster_state()), flush=True)
        ray.shutdown()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
