"""Whether DAGs are right, told without running them: for the tests of those who write DAGs, and their CI.

No store, model, cluster or database is asked.
"""

from clip_operator.testing.dags import Examination, assert_dags_valid, check_dags, examine_dags
from clip_operator.testing.finding import Finding

__all__ = ["Examination", "Finding", "assert_dags_valid", "check_dags", "examine_dags"]
