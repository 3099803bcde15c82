"""Seconds of the jobs that neither train nor score, which the plan's rows leave out."""

from loragrid.study.sections import HELDOUT_LOSS
from loragrid.study.study_file import Study

# ASSUME: rounded up from the demo on one quiet core. Preparing takes two seconds more per thousand rows, which is
# still short beside training on them.
SHORT_JOB_SECONDS = {"prepare_data": 6.0, "find_contamination": 2.0, "compare": 3.0, "find_next": 2.0, "report": 7.0}
# Until the first job works: reading the study, and importing the libraries in the process that the jobs share.
START_SECONDS = 12.0


def other_seconds(study: Study) -> float:
    """Seconds of a whole study other than training and scoring."""
    counts = dict.fromkeys(SHORT_JOB_SECONDS, 1)
    counts["prepare_data"] = len(study.data_sets)
    counts["find_contamination"] = 0 if set(study.scoring.tasks) <= {HELDOUT_LOSS} else len(study.data_sets)
    return START_SECONDS + sum(SHORT_JOB_SECONDS[rule] * count for rule, count in counts.items())
