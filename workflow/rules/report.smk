# Report: one self-contained HTML page, drawn from the comparison and the records.
# in:  results/{study}/compare/compare.json, results/{study}/next/next.json, the search's result if there is one; records,
#      losses and data cards, undeclared
# out: reports/{study}/report.html, beside it figures/ and tables/; `snakemake --report` bundles all three with captions


rule report:
    input:
        comparison="<results>/compare/compare.json",
        options="<results>/next/next.json",
        search=JOBS.search_result if JOBS.searched and not OPTIONS.partial else [],
    output:
        page=report(
            "<reports>/report.html",
            caption="../report/page.rst",
            category="Report",
        ),
        figures=report(
            directory("<reports>/figures"),
            patterns=["{picture}.svg"],
            caption="../report/figure.rst",
            category="Pictures",
            labels={"picture": "{picture}"},
        ),
        tables=report(
            directory("<reports>/tables"),
            patterns=["{table}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
    params:
        results=lambda wildcards, input: Path(input.comparison).parents[1],
        title=STUDY.title,
        search=JOBS.shown_search_digest(),
        literature=files_digest([LITERATURE]),
        templates=files_digest((paths.SCRIPTS / "loragrid" / "reporting" / "templates").glob("*")),
        code=code_digest("report"),
    shell:
        'exec python "$SCRIPTS/report.py" --study "$STUDY" --results {params.results:q}'
        " --out {output.page:q} --log {log:q}"
