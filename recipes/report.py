"""A report of all records: what noise costs which models, every table of the papers beside what was measured, claims.

    python recipes/report.py                             # benchmarks/results to runs/report/report.html and report.md
    python recipes/report.py --records runs/reproduce    # of your own runs
    python recipes/report.py --records runs/reproduce --scale gpu -- --source corpus.parquet    # told flags
    python recipes/report.py --readme                    # the tables of README.md and docs, from the records
"""

from hf_noise.studies.door import door
from hf_noise.studies.report.study import main

if __name__ == "__main__":
    door(main)
