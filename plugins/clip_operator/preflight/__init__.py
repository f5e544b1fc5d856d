"""What is looked at before a pod is started or a model is loaded, so that a typo costs a second and not minutes."""

from clip_operator.preflight.before_pod import check_before_pod
from clip_operator.preflight.columns import open_checked
from clip_operator.preflight.image_sample import no_image_comes

__all__ = ["check_before_pod", "no_image_comes", "open_checked"]
