"""Training and parallel work on Ray: the only room that imports ray. Below `stages/`, beside `train/runtime.py`.

cluster.py  `connect`: to the cluster at `$RAY_ADDRESS`, or to a Ray of this process's own
training.py `launch`: one training on a Ray Train worker group; `RayRuntime`
tasks.py    `fan_out`: a plain function over the cluster's nodes
"""

from segpipe.train.on_ray.cluster import connect, gpu_share
from segpipe.train.on_ray.tasks import fan_out
from segpipe.train.on_ray.training import RayRuntime, launch

__all__ = ["RayRuntime", "connect", "fan_out", "gpu_share", "launch"]
