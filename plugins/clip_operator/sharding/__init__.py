"""One step over many workers: the plan that cuts its input into shards, and the merge of what they have written.

Between the two every shard is an evaluation of its own: ``evaluate(plan.shard_request(name, requester))``.
"""

from clip_operator.sharding.merge import merge_shards
from clip_operator.sharding.plan import ShardPlan, plan_shards, read_plan

__all__ = ["ShardPlan", "merge_shards", "plan_shards", "read_plan"]
