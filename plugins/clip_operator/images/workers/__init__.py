"""Processes that fetch, decode and resize images, so that no image can hang, crash or swell the process of the model.

:class:`~clip_operator.images.workers.pool.ImageWorkers` is the door. Nothing is imported here: a worker process loads
:mod:`~clip_operator.images.workers.child` and what that needs, and is there in a tenth of a second.
"""
