# Export: one finished run as others use it, each form measured beside the run: `--config run=RUN`, or the run that the page names.
# in:  the run's record and score and its base's score, or the comparison; the report, undeclared
# out: results/{study}/export/{run}/: adapter/, merged/, README.md, export.json; gguf/ and ollama/ if asked for. Undeclared: which run
#      it is may be known after the comparison only, and Snakemake would delete an export before it makes it again.


rule export:
    input:
        EXPORTED,
    log:
        "<logs>/export.log",
    conda:
        ENVIRONMENT
    threads: STUDY.scoring.threads
    resources:
        mem_mb=JOBS.request("score", OPTIONS.run or STUDY.cells[0].run)["mem_mb"],
        runtime=JOBS.request("score", OPTIONS.run or STUDY.cells[0].run)["runtime"],
        gpu=1,
        vram_mib=JOBS.request("score", OPTIONS.run or STUDY.cells[0].run)["vram_mib"],
    params:
        results=lambda wildcards: RESULTS,  # the linter takes a text for a prefix of the inputs
        page=f"{REPORTS}/report.html",
        asked=OPTIONS.export_arguments,
    shell:
        'exec python "$SCRIPTS/export.py" --study "$STUDY" --results {params.results:q} --page {params.page:q}'
        " {params.asked} --log {log:q}"
