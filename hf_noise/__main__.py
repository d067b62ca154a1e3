"""`python -m hf_noise` is the console script `hf-noise`."""

from hf_noise.studies.command import main

if __name__ == "__main__":
    main()
