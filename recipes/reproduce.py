"""Every table of the papers from one command: what is printed, what is measured here, and which claims held.

    python recipes/reproduce.py --list                        # ids, what is there, what it would take
    python recipes/reproduce.py A.table8 A.figure1            # at demo scale: minutes on 2 cores, no network
    python recipes/reproduce.py all --scale demo --jobs 2     # started again, it goes on where it was
"""

from hf_noise.studies.door import door
from hf_noise.studies.reproduce.study import main

if __name__ == "__main__":
    door(main)
