"""Where data come from: sources, packing, builders behind `load_dataset("hf_noise/...")`, and `corrupt`.

Nothing is imported here, because `import hf_noise` comes through this file and must not wait for `datasets`.
"""
