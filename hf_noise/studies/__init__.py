"""What the recipes run: one engine, and a folder for each study. `accelerate launch -m hf_noise.studies.language`."""
