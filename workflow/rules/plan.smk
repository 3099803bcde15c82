# Plan: what the study takes (memory, operations, hours, sessions), before anything is downloaded; finished runs make it more exact.
# in:  the study file, config/cards.yaml and task_sizes.yaml; data cards and records, if there are any
# out: a table on the terminal; results/{study}/plan/: plan.csv and plan.json; reports/{study}/plan.html. None is declared: every
#      call makes the plan again, and nothing depends on it.


rule plan:
    log:
        "<logs>/plan.log",
    conda:
        ENVIRONMENT
    params:
        results=RESULTS,
        page=f"{REPORTS}/plan.html",
        worker="--no-worker" if OPTIONS.worker is False or not workflow.local_exec else "",
    shell:
        'exec python "$SCRIPTS/plan.py" --study "$STUDY" --results {params.results:q}'
        " --page {params.page:q} $SESSION {params.worker} --text {log:q}"
